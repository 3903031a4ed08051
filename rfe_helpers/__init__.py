"""RHEL for Edge: build, inspect, serve, install, update and run edge systems.

The package behind the workbook's notebooks. A few lines in an empty notebook compose a system, open
the commit and list what is in it:

>>> import rfe_helpers as rfe
>>> lab = rfe.Lab("~/rfe-lab")  # a directory for everything you make  # doctest: +SKIP
>>> system = rfe.Blueprint("edge", packages=["tmux"])
>>> artifact = rfe.compose(lab, system)  # the sandbox's Image Builder, or a real one
>>> commit = rfe.open_commit(artifact.path)
>>> print(commit.ref, commit.id)
debian/13/x86_64/edge ...
>>> for package in commit.packages():
...     print(package)
adduser-...

The chapters, and the notebooks that are about them:

    lab         a run of the workbook, and the releases
    build       Image Builder: blueprints and composes             notebooks 10, 20
    commit      what is in a commit                                notebook 30
    serve       a web server, publications, a registry             notebooks 40, 65
    install     kickstarts and boot ISOs                           notebooks 50, 70
    machine     virtual machines, and the systems on them          notebooks 50, 60
    prove       interrupted updates                                notebook 67
    fleet       many devices                                       notebooks 80, 85, 90
    imagemode   containers that boot                               notebook 100
    room        JupyterHub for a room, and the trainer's page
    workbook    checks, tables, progress, panels, headless runs    every notebook
    core        processes, files, waiting, SSH

`help(rfe_helpers.build)` says more about that one, and so on. Every function and class has an
example. Names that an example uses without a line that makes them are parts of a lab in which the
notebooks from 10 to 60 have run:

    lab         the lab itself: Lab("~/rfe-lab")
    client      its Image Builder: build.connect(lab)
    artifact    the artifact of notebook 20, as build.compose returns it
    commit      the commit in it: open_commit(artifact.path)
    update      the commit of notebook 60
    site        what the lab serves: serve.published(lab)
    iso         the path of the boot ISO: build.boot_iso(lab)
    machine     the machine of notebook 50: Machine.find(lab, "edge-1")
    node        the system on it: Node(lab, "edge-1", port=…)
    registry    the registry: serve.registry.start(lab)
    image       the base image in it: imagemode.push_base(lab)
"""

from importlib import metadata

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

try:
    __version__ = metadata.version("rfe-workbook")
except metadata.PackageNotFoundError:  # not installed: a tree on PYTHONPATH
    __version__ = "0.0.0"
