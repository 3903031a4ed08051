"""What a translation collects: files of a build context, lines of tmpfiles.d and sysusers.d,
packages, commands and remarks.

Files reach the image by one `COPY rootfs/ /`, so that no content and no path of a blueprint has to
be quoted in a Containerfile. What belongs below /var is copied there by systemd-tmpfiles at boot:
the /var of an image reaches a machine at its first installation only (bootc,
docs/src/filesystem.md, 2026-08).
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from rfe_helpers.lab.profile import Profile

ROOT = "rootfs"
TMPFILES = "/usr/lib/tmpfiles.d/10-blueprint.conf"
SYSUSERS = "/usr/lib/sysusers.d/10-blueprint.conf"
_FACTORY = "/usr/share/factory"  # where tmpfiles.d looks for what it copies
# Links of an image-mode system, and those that the sandbox's tree has in addition, as every edge
# commit.
_LINKS = {
    "/bin": "/usr/bin",
    "/sbin": "/usr/sbin",
    "/lib": "/usr/lib",
    "/lib64": "/usr/lib64",
    "/home": "/var/home",
    "/mnt": "/var/mnt",
    "/root": "/var/roothome",
    "/srv": "/var/srv",
}
_LINKS_OF_EDGE = {"/opt": "/var/opt", "/usr/local": "/var/usrlocal"}
# Content there is dropped, or is not an image's to decide.
# fmt: off
_NOWHERE = (
    "/boot", "/dev", "/media", "/ostree", "/proc", "/run", "/sys", "/sysroot", "/tmp",  # noqa: S108
    "/usr/etc", "/var/lock", "/var/run",
    "/etc/fstab", "/etc/group", "/etc/gshadow", "/etc/mtab", "/etc/passwd", "/etc/resolv.conf",
    "/etc/shadow",
)
# fmt: on
_LONGEST_NAME, _LONGEST_PATH = 255, 3000
_PLAIN = re.compile(r"[A-Za-z0-9/._@:+,=%-]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
# One command of a RUN is one argument of a shell, and the kernel takes 128 KiB of it.
_LONGEST_COMMAND = 100_000


@dataclass(frozen=True)
class Remark:
    """A part of a blueprint that is not in the Containerfile, or not as it was: its key, why, and
    what to do instead.

    >>> from rfe_helpers import imagemode
    >>> from rfe_helpers.build import Blueprint
    >>> from rfe_helpers.lab import profile
    >>> blueprint = Blueprint("edge", customizations={"fips": True})
    >>> [remark] = imagemode.translate(blueprint, profile.load("rhel-9.6")).remarks
    >>> remark.key
    'customizations.fips'
    """

    key: str
    why: str
    instead: str

    def __str__(self) -> str:
        return f"{self.key}: {self.why}\n  to do: {self.instead}"


@dataclass(frozen=True)
class ContextFile:
    """A file of a build context: its path in it, such as rootfs/etc/motd, its text and its mode.

    >>> from rfe_helpers import imagemode
    >>> from rfe_helpers.build import Blueprint
    >>> from rfe_helpers.lab import profile
    >>> motd = {"path": "/etc/motd", "data": "shop 17"}
    >>> blueprint = Blueprint("edge", customizations={"files": [motd]})
    >>> imagemode.translate(blueprint, profile.load("rhel-9.6")).files
    (ContextFile(path='rootfs/etc/motd', text='shop 17', mode=420),)
    """

    path: str
    text: str
    mode: int = 0o644


class Draft:
    """A translation that is being made. Methods take the `key` of the blueprint for remarks."""

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self.packager = profile.image_mode.packager
        self.packages: list[str] = []
        self.before: list[str] = []  # commands before packages are installed
        self.commands: list[str] = []  # after files are copied
        self.tmpfiles: list[str] = []
        self.sysusers: list[str] = []
        self.gids: set[int] = set()  # of the groups in sysusers
        self.remarks: list[Remark] = []
        self._files: dict[str, ContextFile] = {}
        self._directories: set[str] = set()
        edge = _LINKS_OF_EDGE if profile.backend == "sandbox" else {}
        self._links = {**_LINKS, **edge}

    def remark(self, key: str, why: str, instead: str) -> None:
        self.remarks.append(Remark(key, why, instead))

    def install(self, *names: str) -> None:
        """Have packages installed, each once."""
        self.packages += [name for name in names if name not in self.packages]

    def real(self, path: str) -> str:
        """Where a path leads in an image-mode system."""
        for link, target in self._links.items():
            if path == link or path.startswith(f"{link}/"):
                return target + path.removeprefix(link)
        return path

    def refusal(self, path: str) -> str:
        """Why nothing can be put at a path; "" if something can."""
        if not path.startswith("/") or posixpath.normpath(path) != path or path.startswith("//"):
            return "it is not an absolute, canonical path"
        if _CONTROL.search(path) or not _is_text(path):
            return "its path has control characters"
        encoded = path.encode()
        if len(encoded) > _LONGEST_PATH or max(map(len, encoded.split(b"/"))) > _LONGEST_NAME:
            return "its path is too long"
        real = self.real(path)
        if real in ("/", "/etc", "/usr", "/var", *self._links.values()):
            return "it is a directory of every system"
        for place in _NOWHERE:
            if real == place or real.startswith(f"{place}/"):
                return f"an image cannot bring {place}"
        return ""

    def put(self, path: str, text: str, key: str, mode: int = 0o644) -> bool:
        """Put a file at a path of the system, below /var by tmpfiles.d; returns whether it is
        there."""
        why = self.refusal(path) or ("" if _is_text(text) else "its content is not text")
        real = self.real(path)
        stored = f"{ROOT}{_FACTORY}{real}" if real.startswith("/var/") else f"{ROOT}{real}"
        if not why and self._is_taken(stored):
            why = "another part of the blueprint has something there"
        if why:
            self.remark(key, f"{path!r} is left out: {why}", "add it to the Containerfile yourself")
            return False
        self._files[stored] = ContextFile(stored, text, mode)
        self._directories |= _parents(stored)
        return True

    def is_file(self, path: str) -> bool:
        """Whether there is a file at a path of the system, or above it."""
        real = self.real(path)
        stored = f"{ROOT}{_FACTORY}{real}" if real.startswith("/var/") else f"{ROOT}{real}"
        return stored in self._files or not _parents(stored).isdisjoint(self._files)

    def _is_taken(self, stored: str) -> bool:
        """Whether a file is there, above it, or below it."""
        return (
            stored in self._files
            or stored in self._directories
            or not _parents(stored).isdisjoint(self._files)
        )

    def files(self) -> tuple[ContextFile, ...]:
        """All files of the context, sorted by path, those of tmpfiles.d and sysusers.d included."""
        for path, lines in ((SYSUSERS, self.sysusers), (TMPFILES, self.tmpfiles)):
            if lines:
                stored = f"{ROOT}{path}"
                self._files[stored] = ContextFile(stored, "\n".join(lines) + "\n")
        return tuple(self._files[path] for path in sorted(self._files))


def quoted(path: str, *, pattern: bool = False) -> str:
    r"""A path as a word of tmpfiles.d(5), where % begins a specifier; as a `pattern`, one that
    matches this path alone.

    Quotes mean the same to all versions; systemd 252 does not know escapes such as \x20.
    """
    text = re.sub(r"[*?\[\]{}\\]", r"\\\g<0>", path) if pattern else path
    text = text.replace("%", "%%")
    if _PLAIN.fullmatch(text):
        return text
    return '"' + re.sub(r'[\\"]', r"\\\g<0>", text) + '"'


def portions(words: Iterable[str]) -> Iterator[list[str]]:
    """Words in lists that each fit into one command."""
    portion: list[str] = []
    length = 0
    for word in words:
        if portion and length + len(word) > _LONGEST_COMMAND:
            yield portion
            portion, length = [], 0
        portion.append(word)
        length += len(word) + 8
    if portion:
        yield portion


def _parents(path: str) -> set[str]:
    return {path[:index] for index, character in enumerate(path) if character == "/"}


def _is_text(text: str) -> bool:
    """Whether UTF-8 has it, which has no halves of surrogate pairs."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text
