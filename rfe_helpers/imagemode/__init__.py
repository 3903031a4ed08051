"""Containers that boot: from blueprints and commits to image mode (notebook 100).

In image mode the operating system is a container image: a Containerfile in place of a blueprint, a
registry in place of a repository, and `bootc` beside rpm-ostree on the device. `translate` makes a
Containerfile of a blueprint and says what belongs elsewhere, `write` puts it with its files into a
directory, `build_image` builds that with podman and pushes it to the lab's registry, where
`base_image` has put the sandbox's base. `plan` lists the commands that take a machine of a
release across, and `counterparts` is the table of what was and what is.

For example:

>>> from pathlib import Path
>>> from rfe_helpers import imagemode
>>> from rfe_helpers.build import Blueprint
>>> blueprint = Blueprint("edge", packages="tmux")
>>> translation = imagemode.translate(blueprint, lab.profile, base=image.reference)
>>> translation.remarks
()
>>> imagemode.write(translation, Path("os"))
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
