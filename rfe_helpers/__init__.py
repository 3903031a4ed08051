"""RHEL for Edge: build, inspect, serve, install, update and run edge systems.

The package behind the workbook's notebooks. Ten lines in an empty notebook compose a system, open
the commit and list what is in it:

    import rfe_helpers as rfe

    lab = rfe.Lab("~/rfe-lab")                       # a directory for all that is made
    system = rfe.Blueprint("edge", packages=["tmux"])
    artifact = rfe.compose(lab, system)              # the sandbox's Image Builder, or a real one
    commit = rfe.open_commit(artifact.path)
    print(commit.ref, commit.id)
    for package in commit.packages():
        print(package)

The chapters, and the notebooks that are about them:

    lab         a run of the workbook, and the releases
    build       Image Builder: blueprints and composes             notebooks 10, 20
    commit      what is in a commit                                notebook 30
    serve       a web server, publications, a registry             notebooks 40, 65
    install     kickstarts and boot ISOs                           notebooks 50, 70
    machine     virtual machines, and the systems on them          notebooks 50, 60
    prove       interrupted updates                                notebook 67
    fleet       many devices                                       notebooks 80, 85, 90
    workbook    checks, tables, progress, panels, headless runs    every notebook
    core        processes, files, waiting, SSH

`help(rfe_helpers.build)` says more about that one, and so on.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

__version__ = "0.1.0"
