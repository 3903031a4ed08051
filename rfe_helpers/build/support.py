"""What each release of Image Builder, and the sandbox, makes of each part of a blueprint.

The facts are in support.toml, with their sources; `python -m rfe_helpers.build.support` prints them
as docs/customizations.md.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

from rfe_helpers.build.keys import CUSTOMIZATIONS
from rfe_helpers.lab.profile import Profile

TAKES, WARNS, IGNORES, REFUSES = "takes", "warns", "ignores", "refuses"
# The parts whose keys fare differently.
_SPLIT = {
    "installer": (
        "kickstart",
        "modules",
        "sudo-nopasswd",
        "unattended",
        "menu-timeout",
        "bootloader",
        "payload",
    ),
    "kernel": ("append", "name"),
}
_TOP = ("packages", "modules", "groups", "containers", "enabled_modules")
_SHOWN = {TAKES: "✓", WARNS: "warns", IGNORES: "ignores", REFUSES: "**refuses**"}
_PURPOSES = {
    **dict.fromkeys(("commit", "container"), "commit"),
    **dict.fromkeys(("raw", "ami", "vsphere", "qcow2"), "raw"),
}


@cache
def facts() -> Mapping[str, Any]:
    """The data of support.toml."""
    return tomllib.loads((resources.files("rfe_helpers.build") / "support.toml").read_text())


def parts() -> list[str]:
    """All parts of a blueprint, such as packages, hostname and kernel.append."""
    names = []
    for name in (*_TOP, *sorted(CUSTOMIZATIONS)):
        names += [f"{name}.{key}" for key in _SPLIT.get(name, ())] or [name]
    return names


def requested(customizations: Mapping[str, Any]) -> list[str]:
    """The parts() that customizations request, sorted."""
    names = []
    for name in sorted(CUSTOMIZATIONS):
        if value := customizations.get(name):
            keys = _SPLIT.get(name, ())
            names += [f"{name}.{key}" for key in keys if value.get(key)] if keys else [name]
    return names


def release(profile: Profile) -> str:
    """The release of support.toml that a profile is of."""
    if profile.backend == "sandbox":
        return "sandbox"
    if profile.distro.startswith("rhel-8."):
        return "rhel-8"
    return "rhel-9" if re.fullmatch(r"rhel-9\.[0-6]", profile.distro) else "newer"


def title(profile: Profile) -> str:
    """The releases that do as that of a profile, in words."""
    return str(facts()["releases"][release(profile)]["said"])


def verdict(release: str, purpose: str, part: str) -> str:
    """What a release makes of a part of a blueprint: TAKES, WARNS, IGNORES or REFUSES.

    `purpose` is a field of profile.Types, or "guest".
    """
    table = facts()[release][_PURPOSES.get(purpose, purpose)]
    for name in (part, part.partition(".")[0]):
        for outcome in (TAKES, WARNS, IGNORES, REFUSES):
            if name in table.get(outcome, ()):
                return outcome
    return str(table["rest"])


def reason(part: str) -> str:
    """Why the sandbox does not do a part of a blueprint; "" if its name says it."""
    return str(facts()["reasons"].get(part, ""))


def supported(release: str, purpose: str) -> list[str]:
    """The parts that have an effect, sorted."""
    return sorted(part for part in parts() if verdict(release, purpose, part) == TAKES)


# the page -----------------------------------------------------------------------------------------

_HEAD = """\
# Customizations

What becomes of each part of a blueprint, by image type and release. ✓: it has an effect. *warns*:
the compose begins, with a warning, and leaves it out. *ignores*: the compose leaves it out and says
nothing. **refuses**: the compose does not begin.

`rfe blueprint lint FILE --profile rhel-9.4 --type edge-raw-image` says it of a blueprint. This page
is written from `rfe_helpers/build/support.toml`.
"""


def document() -> str:
    """The facts as a page in Markdown."""
    data = facts()
    releases = data["releases"]
    lines = [_HEAD]
    for purpose, types in data["types"].items():
        lines.append(f"## {types}\n")
        lines.append("| | " + " | ".join(releases[name]["title"] for name in releases) + " |")
        lines.append("|---" * (len(releases) + 1) + "|")
        for part in parts():
            verdicts = [verdict(name, purpose, part) for name in releases]
            if set(verdicts) & {TAKES}:
                shown = " | ".join(_SHOWN.get(each, each) for each in verdicts)
                lines.append(f"| `{part}` | {shown} |")
        lines.append("")
        rest = [part for part in parts() if _nobody_takes(purpose, part)]
        lines.append(f"No release takes {', '.join(f'`{part}`' for part in rest)}.\n")
    lines.append("## Why the sandbox refuses\n")
    lines += [f"* `{part}`: {why}" for part, why in data["reasons"].items()]
    lines.append("\n## Sources\n")
    lines += [f"* {each['what']}: {each['where']}" for each in data["sources"]]
    return "\n".join(lines) + "\n"


def _nobody_takes(purpose: str, part: str) -> bool:
    return all(verdict(name, purpose, part) != TAKES for name in facts()["releases"])


if __name__ == "__main__":
    print(document(), end="")
