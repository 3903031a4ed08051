"""From a blueprint to packages: what it requests, and what an image made from it contains."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rfe_helpers.build.blueprint import Blueprint, PackageSpec
from rfe_helpers.sandbox.build import customizations
from rfe_helpers.sandbox.build.image_types import KERNELS
from rfe_helpers.sandbox.service.packages import AptPackage
from rfe_helpers.sandbox.service.wire import Service


def solve(
    service: Service, blueprint: Blueprint, sources: Sequence[str], also: Sequence[str] = ()
) -> tuple[list[str], list[AptPackage]]:
    """The requested packages as arguments of apt, and all packages of the image: what apt installs
    for them, for the blueprint's kernel, for the base and for the packages named in `also`.

    `sources` are the additional sources as deb822 text. Raises RfeError.
    """
    requested = _requested_packages(service, blueprint, sources)
    names = [*customizations.packages(blueprint), customizations.kernel(blueprint)]
    added = service.index.resolve([PackageSpec(name) for name in names])
    # The blueprint's kernel takes the place of the base's.
    base = [word for word in (*service.base, *also) if word not in KERNELS]
    return requested, service.index.depsolve([*requested, *added], sources, base)


def _requested_packages(
    service: Service, blueprint: Blueprint, sources: Sequence[str]
) -> list[str]:
    groups = [PackageSpec(name) for name in customizations.group_packages(blueprint)]
    return service.index.resolve([*blueprint.packages, *blueprint.modules, *groups], sources)


def dependencies(service: Service, packages: Iterable[AptPackage]) -> list[dict[str, Any]]:
    """A solution in the API's form."""
    entries = service.store.sources()
    unchecked = tuple(entry["url"].split()[0] for entry in entries if not entry["check_gpg"])
    return [
        package.to_dependency(
            check_gpg=not package.url.removeprefix("mirror+").startswith(unchecked)
        )
        for package in packages
    ]
