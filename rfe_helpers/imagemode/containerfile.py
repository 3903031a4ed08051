"""From a blueprint to a Containerfile, the files beside it, and what belongs elsewhere.

The forms are those of bootc's documentation (docs/src, 2026-08): packages by RUN, files by COPY,
accounts by sysusers.d, kernel arguments in /usr/lib/bootc/kargs.d, and `bootc container lint` at
the end.
"""

from __future__ import annotations

import re
import shlex
import shutil
import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from rfe_helpers.build.blueprint import Blueprint
from rfe_helpers.build.keys import CUSTOMIZATIONS
from rfe_helpers.core import files
from rfe_helpers.errors import InputError, ProfileError
from rfe_helpers.imagemode import accounts, settings
from rfe_helpers.imagemode.context import ROOT, ContextFile, Draft, Remark, portions
from rfe_helpers.lab.profile import Profile

NAME = "Containerfile"
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_HOST = r"[A-Za-z0-9][A-Za-z0-9.-]*(?::[0-9]{1,5})?"
_IMAGE = re.compile(
    rf"(?:{_HOST}/)?{_COMPONENT}(?:/{_COMPONENT})*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@sha256:[0-9a-f]{64})?"
)
_LONGEST_IMAGE = 500
_INSTALL = {
    "apt": (
        "apt-get update",
        "apt-get install --yes --no-install-recommends",
        "rm -rf /var/lib/apt/lists/*",
    ),
    "dnf": ("", "dnf --assumeyes install", "dnf clean all"),
}


@dataclass(frozen=True)
class Translation:
    """A blueprint in image mode: the text of the Containerfile, the files that its COPY needs, and
    what is not in it, or not as it was.

    >>> from rfe_helpers import imagemode
    >>> from rfe_helpers.build import Blueprint
    >>> from rfe_helpers.lab import profile
    >>> translation = imagemode.translate(Blueprint("edge"), profile.load("rhel-9.6"))
    >>> translation.files, translation.remarks
    ((), ())
    """

    containerfile: str
    files: tuple[ContextFile, ...]
    remarks: tuple[Remark, ...]


def translate(blueprint: Blueprint, profile: Profile, *, base: str = "") -> Translation:
    r"""The Containerfile of a blueprint for a release; pure.

    >>> from rfe_helpers import imagemode
    >>> from rfe_helpers.build import Blueprint
    >>> from rfe_helpers.lab import profile
    >>> blueprint = Blueprint("edge", packages="tmux")
    >>> print(imagemode.translate(blueprint, profile.load("rhel-9.6")).containerfile)
    # The blueprint edge 0.0.0 in image mode
    FROM registry.redhat.io/rhel9/rhel-bootc:9.6
    LABEL containers.bootc=1
    RUN dnf --assumeyes install \
        tmux \
     && dnf clean all
    RUN bootc container lint

    `base` is the image to begin with, "" for that of the release. What the blueprint has twice, or
    cannot be in an image, is a remark, not an error. Raises InputError for a base that is not the
    name of an image, ProfileError for a release without image mode.
    """
    image = _base(profile, base)
    customizations = blueprint.customizations
    draft = Draft(profile)
    settings.enabled_modules(draft, blueprint.enabled_modules)
    settings.packages(draft, blueprint.packages, "packages")
    settings.packages(draft, blueprint.modules, "modules")
    settings.groups(draft, blueprint.groups)
    _customize(draft, customizations)
    _remark_elsewhere(draft, blueprint)
    context = draft.files()
    lines = [*_head(blueprint, image), *_body(draft, bool(context)), "RUN bootc container lint"]
    return Translation("\n".join(lines) + "\n", context, tuple(draft.remarks))


def _base(profile: Profile, base: str) -> str:
    if not profile.image_mode.packager:
        raise ProfileError(
            f"{profile.title} has no image mode",
            remedy="choose a later release; `rfe imagemode plan` says which",
        )
    if base and (len(base) > _LONGEST_IMAGE or not _IMAGE.fullmatch(base)):
        raise InputError(
            f"{ascii(base)[:80]} is not the name of an image",
            remedy="write it as podman pull takes it: registry.example.com/edge/base:1",
        )
    return base or profile.image_mode.base


def _customize(draft: Draft, customizations: Mapping[str, Any]) -> None:
    """The files of the blueprint come first: they win over what other parts would write."""
    settings.files(draft, customizations.get("files") or [])
    settings.directories(draft, customizations.get("directories") or [])
    accounts.groups(draft, customizations.get("group") or [])
    accounts.users(draft, customizations.get("user") or [])
    accounts.keys(draft, customizations)
    for name, translate_part in (
        ("kernel", settings.kernel),
        ("timezone", settings.timezone),
        ("locale", settings.locale),
        ("cacerts", settings.cacerts),
        ("services", settings.services),
        ("firewall", settings.firewall),
    ):
        translate_part(draft, customizations.get(name) or {})
    if name := str(customizations.get("hostname") or ""):
        settings.hostname(draft, name)


@cache
def _elsewhere() -> Mapping[str, Mapping[str, str]]:
    text = (resources.files("rfe_helpers.imagemode") / "elsewhere.toml").read_text()
    return tomllib.loads(text)


def _remark_elsewhere(draft: Draft, blueprint: Blueprint) -> None:
    """What has no counterpart, and keys that nobody knows."""
    values: dict[str, Any] = {
        "distro": blueprint.distro,
        "architecture": blueprint.architecture,
        "containers": blueprint.containers,
        **blueprint.other,
        **{f"customizations.{key}": value for key, value in blueprint.customizations.items()},
    }
    for key, value in values.items():
        part, _, name = key.partition(".")
        known = part == "customizations" and name in CUSTOMIZATIONS
        if value and key in _elsewhere():
            draft.remark(key, **_elsewhere()[key])
        elif value and not known:
            draft.remark(ascii(key)[1:-1][:80], "Image Builder does not know it", "remove it")


def _head(blueprint: Blueprint, image: str) -> Iterator[str]:
    # On one line each: a second one would be an instruction.
    yield f"# The blueprint {_line(blueprint.name)} {_line(blueprint.version)} in image mode"
    if blueprint.description:
        yield f"# {_line(blueprint.description)}"
    yield from (f"FROM {image}", "LABEL containers.bootc=1")


def _line(text: str) -> str:
    """A text in printable ASCII; a backslash at the end of a line would continue it."""
    return " ".join(ascii(text)[1:-1].split())[:200].rstrip("\\")


def _body(draft: Draft, copies: bool) -> Iterator[str]:
    for command in draft.before:
        yield f"RUN {command}"
    update, install, clean = _INSTALL[draft.packager]
    for portion in portions(map(shlex.quote, draft.packages)):
        commands = [" \\\n    ".join([install, *portion]), clean]
        yield "RUN " + " \\\n && ".join([update, *commands] if update else commands)
    if copies:
        yield f"COPY {ROOT}/ /"
    for command in draft.commands:
        yield f"RUN {command}"


def write(translation: Translation, directory: Path, *, replace: bool = False) -> None:
    """Write the Containerfile and its files into a directory, all or nothing.

    >>> from pathlib import Path
    >>> from rfe_helpers import imagemode
    >>> from rfe_helpers.build import Blueprint
    >>> from rfe_helpers.lab import profile
    >>> translation = imagemode.translate(Blueprint("edge"), profile.load("rhel-9.6"))
    >>> imagemode.write(translation, Path("edge-image"))  # then: podman build edge-image

    A directory that has exactly these files already stays as it is; with `replace` one that has
    another Containerfile is replaced as a whole. Raises InputError for one that has other files,
    DiskFullError.
    """
    target = directory.expanduser().resolve()
    context = [ContextFile(NAME, translation.containerfile), *translation.files]
    if target.exists() and not target.is_dir():
        raise InputError(f"{directory} is not a directory", remedy="name one that is not there yet")
    if target.is_dir() and any(target.iterdir()):
        if _holds(target, context):
            return
        if not (replace and (target / NAME).is_file()):
            raise InputError(
                f"{directory} is not empty, and nothing in it was changed",
                remedy="name a directory that is not there yet, or remove this one",
            )
    with files.writing(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        try:
            for entry in context:
                _write(work, entry)
            work.chmod(0o755)
            if target.exists():
                with tempfile.TemporaryDirectory(prefix=".old.", dir=target.parent) as old:
                    target.replace(Path(old, "context"))
                    work.replace(target)
            else:
                work.replace(target)
        finally:
            shutil.rmtree(work, ignore_errors=True)


def _write(work: Path, entry: ContextFile) -> None:
    path = work / entry.path
    for parent in reversed(path.relative_to(work).parents[:-1]):
        # Whatever the umask is: COPY gives the modes of directories to those of the image.
        (work / parent).mkdir(exist_ok=True)
        (work / parent).chmod(0o755)
    path.write_bytes(entry.text.encode())
    path.chmod(entry.mode)


def _holds(directory: Path, context: list[ContextFile]) -> bool:
    """Whether a directory has these files and no others."""
    expected = {entry.path: entry.text.encode() for entry in context}
    number = 0
    for path in directory.rglob("*"):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            return False
        if path.is_file():
            content = expected.get(str(path.relative_to(directory)))
            if content is None or path.stat().st_size != len(content):
                return False
            if path.read_bytes() != content:
                return False
            number += 1
    return number == len(expected)
