"""Image Builder (notebooks 10 and 20): get one, describe a system, compose it, download the result.

For example:

    from rfe_helpers.build import Blueprint, compose
    from rfe_helpers.lab import Lab

    lab = Lab("~/rfe-lab")
    artifact = compose(lab, Blueprint("edge", packages=["tmux"]))
    print(artifact.path, artifact.compose.seconds)
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
