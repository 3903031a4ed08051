"""Blueprints to start from: those of the demo. For one of a fleet see `fleet.description`."""

from __future__ import annotations

from importlib import resources

from rfe_helpers.errors import InputError

NAMES = {
    "edge": "the system of edge devices",
    "installer": "an ISO that installs it without a network",
}


def text(name: str) -> str:
    """The TOML of a template. Raises InputError for an unknown name."""
    if name not in NAMES:
        raise InputError(f"no blueprint {name!r}", remedy=f"choose one of {', '.join(NAMES)}, demo")
    return (resources.files("rfe_helpers.build") / "blueprints" / f"{name}.toml").read_text()
