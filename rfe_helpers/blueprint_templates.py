"""Blueprints to begin with: the demo's, for a release. Pure but for reading the templates."""

from __future__ import annotations

from importlib import resources

from rfe_helpers import blueprint as blueprints
from rfe_helpers import device
from rfe_helpers.errors import InputError
from rfe_helpers.profile import Profile

NAMES = {
    "edge": "the system of edge devices",
    "installer": "an ISO that installs it without a network",
    "demo": "a system that keeps itself current: staged updates, a window, an application",
}
_FILES = {"edge": "blueprint.toml", "installer": "installer.toml"}
# An application that is kept current; its registry is the reader's to choose.
_IMAGE = "quay.io/example/application:stable"


def text(name: str, profile: Profile) -> str:
    """The TOML of a template for a release. Raises InputError for an unknown name."""
    if name not in NAMES:
        raise InputError(f"no blueprint {name!r}", remedy=f"choose one of {', '.join(NAMES)}")
    if name in _FILES:
        return (resources.files("rfe_helpers") / "templates" / _FILES[name]).read_text()
    described = device.Device(image=_IMAGE, quadlet=profile.device.quadlet)
    found = blueprints.Blueprint(
        name="Edge-demo",
        description="RHEL for Edge that keeps itself current",
        version="0.0.1",
        packages=tuple(map(blueprints.PackageSpec, device.packages(described))),
        customizations=device.customizations(described),
    )
    return blueprints.to_toml(found)
