"""The releases as a page: what the profiles know of each, with the sources.

`python -m rfe_helpers.lab.releases` prints it as docs/releases.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from msgspec import to_builtins

from rfe_helpers.lab import profile
from rfe_helpers.lab.profile import Profile

_HEAD = """\
# The releases

What the workbook knows of each release, with the source of each fact and its date, from the
profiles in `rfe_helpers/lab/profiles/`. `rfe profiles rhel-9.6` shows one, and
`rfe run --profile rhel-9.6` uses it.

A fact without a source of its own is the default of all releases.
"""
_NOT_FACTS = {"name", "title", "instead", "sources"}


def document() -> str:
    """The page, in Markdown."""
    releases = [profile.load(name) for name in profile.names()]
    lines = [_HEAD, "## At a glance", ""]
    lines += _table(
        ("Release", "Ref", "Served as", "Port", "Kickstart syntax", "Quadlet", "Image mode"),
        ([_link(each), *_overview(each)] for each in releases),
    )
    for release in releases:
        lines += ["", f"## {release.title}", ""]
        if release.instead:
            lines += [f"No edge images: {release.instead}.", ""]
        lines += [f"`--profile {release.name}`", ""]
        lines += _table(("Fact", "Value", "Source"), _facts(release))
    return "\n".join(lines) + "\n"


def _overview(release: Profile) -> list[str]:
    if release.instead:
        return ["no edge images", "", "", "", "", _code(release.image_mode.base)]
    return [
        _code(release.ostree.ref),
        _code(release.types.served),
        str(release.container.port),
        release.kickstart.version,
        "yes" if release.device.quadlet else "no",
        _code(release.image_mode.base),
    ]


def _link(release: Profile) -> str:
    """A link to the section, by the anchor that code hosts and MyST give a heading."""
    letters = (c for c in release.title.lower() if c.isalnum() or c in " -_")
    title = release.title.replace("Red Hat Enterprise Linux", "RHEL").partition(" (")[0]
    return f"[{title}](#{''.join(letters).replace(' ', '-')})"


def _facts(release: Profile) -> Iterator[tuple[str, str, str]]:
    """The facts of each table of the profile with its source, without what a release does not
    have; one with a source of its own has a line of its own."""
    for key, value in to_builtins(release).items():
        if key in _NOT_FACTS:
            continue
        table = value if isinstance(value, Mapping) else {"": value}
        alone = {name for name in table if f"{key}.{name}" in release.sources}
        shared = [
            f"{name} {_value(fact)}".strip()
            for name, fact in table.items()
            if name not in alone and fact not in ("", (), [])
        ]
        if shared:
            yield _code(key), "<br>".join(shared), release.sources.get(key, "")
        for name in sorted(alone):
            yield _code(f"{key}.{name}"), _value(table[name]), release.sources[f"{key}.{name}"]


def _value(fact: Any) -> str:
    if isinstance(fact, bool):
        return "yes" if fact else "no"
    if isinstance(fact, list | tuple):
        return ", ".join(_code(each) for each in fact)
    return f"{fact:,}" if isinstance(fact, int) and fact > 99_999 else _code(fact)


def _code(fact: Any) -> str:
    return f"`{fact}`".replace("|", r"\|") if fact else ""


def _table(head: tuple[str, ...], rows: Any) -> list[str]:
    lines = [" | ".join(head), " | ".join("---" for _ in head), *(" | ".join(row) for row in rows)]
    return [f"| {line} |" for line in lines]


if __name__ == "__main__":
    print(document(), end="")
