"""What to do with the machines of a release, step by step, as commands that a person types.

The steps are in plan.toml, with their sources; which of them are taken depends on the facts of the
profile and on what is known of the blueprint.
"""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from rfe_helpers.build.blueprint import Blueprint
from rfe_helpers.core.network import HOST_FROM_GUEST, LOOPBACK
from rfe_helpers.imagemode.containerfile import translate
from rfe_helpers.lab.profile import Profile

IMAGE = "registry.example.com/edge/os:stable"
_REGISTRY_PORT = 5000
_BLANK = re.compile(r"\{([a-z_]+)\}")


@dataclass(frozen=True)
class PlanStep:
    r"""One step: what it is, its commands, why, and the source of what it says, with a date.

    >>> from rfe_helpers import imagemode
    >>> from rfe_helpers.lab import profile
    >>> step = imagemode.plan(None, profile.load("rhel-9.6"))[0]
    >>> step.title, step.commands[0]
    ('Write a Containerfile', 'mkdir edge-image')
    """

    title: str
    commands: tuple[str, ...]
    why: str
    source: str

    def __str__(self) -> str:
        lines = [self.title, *(f"    {command}" for command in self.commands)]
        return "\n".join([*lines, f"  {self.why}", f"  [{self.source}]"])


def plan(
    blueprint: Blueprint | None, profile: Profile, *, file: str = "BLUEPRINT"
) -> tuple[PlanStep, ...]:
    """The steps that take the machines of a release into image mode; pure.

    >>> from rfe_helpers import imagemode
    >>> from rfe_helpers.lab import profile
    >>> for step in imagemode.plan(None, profile.load("rhel-9.6")):
    ...     print(step.title)
    Write a Containerfile
    ...
    The way back to the commit
    ...

    With the blueprint of their commit, `file` is where it is, and the steps say what of it belongs
    elsewhere. A release without image mode has one step: to a later release.
    """
    known = _known(blueprint, profile)
    values = _values(profile, file)
    if blueprint and profile.image_mode.packager:
        remarks = translate(blueprint, profile).remarks
        known |= {"remarks"} if remarks else set()
        values["remarks"] = "; ".join(f"{each.key}: {each.instead}" for each in remarks)
    return tuple(_steps(known, values))


def _steps(known: set[str], values: Mapping[str, str]) -> Iterator[PlanStep]:
    for step in _data():
        if known.issuperset(step.get("when", ())) and known.isdisjoint(step.get("unless", ())):
            commands = tuple(_filled(command, values) for command in step["commands"])
            yield PlanStep(step["title"], commands, _filled(step["why"], values), step["source"])


def _filled(text: str, values: Mapping[str, str]) -> str:
    """A text with its {blanks} filled in, each once: a value may have braces of its own."""
    return _BLANK.sub(lambda match: values[match[1]], text)


@cache
def _data() -> tuple[Mapping[str, Any], ...]:
    text = (resources.files("rfe_helpers.imagemode") / "plan.toml").read_text()
    return tuple(tomllib.loads(text)["steps"])


def _known(blueprint: Blueprint | None, profile: Profile) -> set[str]:
    """What holds for a release and a blueprint, in the words of plan.toml."""
    facts, sandbox = profile.image_mode, profile.backend == "sandbox"
    if not facts.packager:
        return {"early"}
    names = {spec.name for spec in (*blueprint.packages, *blueprint.modules)} if blueprint else ()
    holds = {
        "edge": not profile.instead,
        "image": bool(profile.instead),
        "blueprint": blueprint is not None,
        "bootc": sandbox or "bootc" in names,
        "no-bootc": not sandbox and blueprint is not None and "bootc" not in names,
        "redhat": facts.base.startswith("registry.redhat.io/"),
        "sandbox": sandbox,
        "next": bool(facts.next_base),
        "builder": bool(facts.builder),
        "image-builder": profile.install.image_builder,
        "ostreecontainer": profile.kickstart.ostreecontainer or sandbox,
    }
    return {name for name, holding in holds.items() if holding}


def _values(profile: Profile, file: str) -> dict[str, str]:
    facts = profile.image_mode
    image = push = IMAGE
    if profile.backend == "sandbox":
        tail = f":{_REGISTRY_PORT}/edge/os:stable"
        image, push = f"{HOST_FROM_GUEST}{tail}", f"{LOOPBACK}{tail}"
    following = image.rpartition(":")[0] + ":next"
    return {
        "title": profile.title,
        "profile": profile.name,
        "blueprint": shlex.quote(file),
        "earlier": _earlier(profile),
        "remote": profile.ostree.remote,
        "base": facts.base,
        "builder": facts.builder,
        "image": image,
        "push": push,
        "registry": image.partition("/")[0],
        "next_base": facts.next_base,
        "next_image": following,
        "next_push": following,
    }


def _earlier(profile: Profile) -> str:
    """The profile that a release without edge images names in `instead`."""
    match = re.search(r"profile ([\w.-]+)\)", profile.instead)
    return match[1] if match else ""
