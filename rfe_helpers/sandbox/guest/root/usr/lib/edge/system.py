"""What the stand-ins for rpm-ostree and bootc share: the deployments of the machine and the
packages in commits, read with libostree's bindings, and the `ostree` command, which changes them.

rpm_ostree.py and bootc.py have the commands.
"""

import contextlib
import fcntl
import os
import subprocess
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .failure import Failure
from .image_reference import ImageReference


class _Unused(types.ModuleType):
    """A module with whatever is asked of it, as an empty class."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


@contextlib.contextmanager
def without_asyncio() -> Iterator[None]:
    """PyGObject imports asyncio for main loops, which no command here has; in an emulated machine
    that takes as long as all the rest of `rpm-ostree status`."""
    if "asyncio" in sys.modules:
        yield
        return
    sys.modules["asyncio"] = _Unused("asyncio")
    try:
        yield
    finally:
        del sys.modules["asyncio"]


with without_asyncio():
    import gi

    gi.require_version("OSTree", "1.0")
    from gi.repository import Gio, GLib, OSTree

LIBOSTREE_VERSION = f"{OSTree.YEAR_VERSION}.{OSTree.RELEASE_VERSION}"
PACKAGE_LIST = "rpmostree.rpmdb.pkglist"
DPKG_STATUS = "/usr/lib/sysimage/dpkg/status"
MANIFEST, MANIFEST_DIGEST = "ostree.manifest", "ostree.manifest-digest"
CONFIG = "ostree.container.image-config"
LOCK = Path("/run/rpm-ostree-sandbox.lock")
ADDED, REMOVED, UPGRADED, DOWNGRADED = range(4)
OstreeError = GLib.Error  # what libostree raises; `message` has the reason


@dataclass(frozen=True, order=True)
class Package:
    name: str
    evr: str
    arch: str

    def __str__(self) -> str:
        return f"{self.name}-{self.evr}.{self.arch}"


# (package, kind, before or None, after or None); the kind is ADDED, REMOVED, …
PackageChange = tuple[Package, int, Any, Any]


class System:
    """The deployments of this machine, in boot order, and its repository; with `repo`, only the
    repository at that path."""

    def __init__(self, *, repo: str | None = None) -> None:
        if repo is not None:
            self.repo = OSTree.Repo.new(Gio.File.new_for_path(repo))
            self.repo.open(None)
            return
        self.sysroot = OSTree.Sysroot.new_default()
        self.sysroot.load(None)
        self.repo = self.sysroot.repo()
        self.booted = self.sysroot.get_booted_deployment()
        self.deployments = list(self.sysroot.get_deployments())

    def require_booted(self) -> Any:
        if self.booted is None:
            raise Failure("this system was not booted from an OSTree deployment")
        return self.booted

    def commit(self, checksum: str) -> Any:
        """A commit object, (a{sv}aya(say)sstayay)."""
        return self.repo.load_commit(checksum)[1]

    def metadata(self, checksum: str) -> Any:
        return GLib.VariantDict.new(self.commit(checksum).get_child_value(0))

    def text(self, checksum: str, key: str) -> str:
        """A string of a commit's metadata, "" if it has none of that name."""
        value = self.metadata(checksum).lookup_value(key, GLib.VariantType("s"))
        return value.get_string() if value is not None else ""

    def version(self, checksum: str) -> str:
        return self.text(checksum, "version")

    def timestamp(self, checksum: str) -> int:
        return int(OSTree.commit_get_timestamp(self.commit(checksum)))

    def packages(self, checksum: str) -> list[Package]:
        value = self.metadata(checksum).lookup_value(PACKAGE_LIST, None)
        if value is None:
            return self._installed(checksum)
        rows = value.unpack()
        return sorted(Package(name, _evr(e, v, r), arch) for name, e, v, r, arch in rows)

    def changes(self, old: str, new: str) -> list[PackageChange] | None:
        """How the packages of two commits differ; None if one of them does not list its own."""
        try:
            return package_diff(self.packages(old), self.packages(new))
        except Failure:
            return None

    def resolve(self, rev: str) -> str:
        return str(self.repo.resolve_rev(rev, False)[1])

    def _installed(self, checksum: str) -> list[Package]:
        """The packages of a commit whose builder has not listed them, from dpkg's database in it:
        a container image."""
        try:
            return sorted(_packages_of(self.read(checksum, DPKG_STATUS)))
        except GLib.Error:
            raise Failure(f"commit {checksum} has no package list") from None

    def read(self, checksum: str, path: str, most: int = 64 << 20) -> str:
        """A text file of a commit, of at most so many bytes. Raises OstreeError, or Failure."""
        stream = self._file(checksum, path).read(None)
        content = b""
        while chunk := stream.read_bytes(1 << 20, None).get_data():
            content += chunk
            if len(content) > most:
                raise Failure(f"{path} of commit {checksum[:12]} has more than {most} bytes")
        return content.decode(errors="replace")

    def names_in(self, checksum: str, path: str) -> list[str]:
        """The names in a directory of a commit, sorted; [] if there is none. Raises Failure."""
        directory = self._file(checksum, path)
        if not directory.query_exists(None):
            return []
        # Of anything else libostree cannot list the content, and ends the process.
        kind = directory.query_file_type(Gio.FileQueryInfoFlags.NOFOLLOW_SYMLINKS, None)
        if kind != Gio.FileType.DIRECTORY:
            raise Failure(f"{path} of commit {checksum[:12]} is not a directory")
        flags = Gio.FileQueryInfoFlags.NOFOLLOW_SYMLINKS
        children = directory.enumerate_children("standard::name", flags, None)
        return sorted(child.get_name() for child in children)

    def _file(self, checksum: str, path: str) -> Any:
        """A file of a commit. Raises Failure if a directory above it is not one."""
        place = self.repo.read_commit(checksum)[1]
        *parents, name = path.strip("/").split("/")
        for parent in parents:
            place = place.get_child(parent)
            kind = place.query_file_type(Gio.FileQueryInfoFlags.NOFOLLOW_SYMLINKS, None)
            if kind not in (Gio.FileType.DIRECTORY, Gio.FileType.UNKNOWN):
                raise Failure(f"{path} of commit {checksum[:12]} is below what is not a directory")
        return place.get_child(name)

    def origin(self, deployment: Any) -> str:
        """The remote and ref that a deployment is updated from; "" for a container image."""
        return _origin_value(deployment, "refspec")

    def image(self, deployment: Any) -> ImageReference | None:
        """The container image that a deployment is updated from; None for a ref."""
        text = _origin_value(deployment, "container-image-reference")
        return ImageReference.parse(text) if text else None

    def index(self, deployment: Any) -> int:
        return next(i for i, other in enumerate(self.deployments) if other.equal(deployment))

    def pending(self) -> Any:
        """The first deployment, which boots next, or None if that is the booted one."""
        index = self.index(self.require_booted())
        return self.deployments[0] if index > 0 else None

    def rollback(self) -> Any:
        """The deployment after the booted one, or None."""
        following = self.index(self.require_booted()) + 1
        return self.deployments[following] if following < len(self.deployments) else None

    def describe(self, deployment: Any) -> dict[str, Any]:
        """One entry of `status --json`."""
        checksum = deployment.get_csum()
        refspec = self.origin(deployment)
        remote = refspec.partition(":")[0] if refspec else ""
        image = self.image(deployment)
        source = (
            {"origin": refspec}
            if image is None
            else {
                "container-image-reference": str(image),
                "container-image-reference-digest": self.text(checksum, MANIFEST_DIGEST),
            }
        )
        return {
            "id": f"{deployment.get_osname()}-{checksum}.{deployment.get_deployserial()}",
            "osname": deployment.get_osname(),
            "serial": deployment.get_deployserial(),
            "checksum": checksum,
            "version": self.version(checksum),
            "timestamp": self.timestamp(checksum),
            **source,
            "booted": self.booted is not None and deployment.equal(self.booted),
            "staged": deployment.is_staged(),
            "pinned": deployment.is_pinned(),
            "unlocked": OSTree.Deployment.unlocked_state_to_string(deployment.get_unlocked()),
            "gpg-enabled": bool(remote) and self.verifies(remote),
            "base-commit-meta": {"version": self.version(checksum)},
            "regenerate-initramfs": False,
            **{key: [] for key in _LAYERING},
        }

    def verifies(self, remote: str) -> bool:
        try:
            return bool(self.repo.remote_get_gpg_verify(remote)[1])
        except GLib.Error:
            return False


# The keys that rpm-ostree fills with layered packages; the sandbox layers none.
_LAYERING = (
    "packages",
    "modules",
    "base-removals",
    "base-local-replacements",
    "initramfs-etc",
    "requested-packages",
    "requested-local-packages",
    "requested-modules",
    "requested-base-removals",
    "requested-base-local-replacements",
    "requested-local-fileoverride-packages",
)


def _origin_value(deployment: Any, key: str) -> str:
    origin = deployment.get_origin()
    try:
        return str(origin.get_string("origin", key)) if origin is not None else ""
    except GLib.Error:
        return ""


def _packages_of(status: str) -> Iterator[Package]:
    """The installed packages of dpkg's status file."""
    for paragraph in status.split("\n\n"):
        lines = (line.partition(": ") for line in paragraph.splitlines() if line[:1].isalpha())
        fields = {key: value for key, _, value in lines}
        complete = {"Package", "Version", "Architecture"} <= fields.keys()
        if complete and fields.get("Status", "").endswith(" installed"):
            yield Package(fields["Package"], fields["Version"], fields["Architecture"])


def _evr(epoch: str, version: str, release: str) -> str:
    prefix = "" if epoch in ("", "0") else f"{epoch}:"
    return f"{prefix}{version}" + (f"-{release}" if release else "")


def package_diff(old: list[Package], new: list[Package]) -> list[PackageChange]:
    """The changes from one list to the other, sorted by name."""
    before = {(p.name, p.arch): p for p in old}
    after = {(p.name, p.arch): p for p in new}
    changes: list[PackageChange] = []
    for key in sorted(before.keys() | after.keys()):
        was, now = before.get(key), after.get(key)
        if was is None and now is not None:
            changes.append((now, ADDED, None, now))
        elif now is None and was is not None:
            changes.append((was, REMOVED, was, None))
        elif was is not None and now is not None and was != now:
            comparison = subprocess.run(["dpkg", "--compare-versions", was.evr, "lt", now.evr])
            kind = UPGRADED if comparison.returncode == 0 else DOWNGRADED
            changes.append((now, kind, was, now))
    return changes


# changes ------------------------------------------------------------------------------------------


@contextlib.contextmanager
def transaction() -> Iterator[None]:
    """One change at a time, of rpm-ostree and of bootc. /sysroot, which is mounted read-only, is
    writable for this process and its children only."""
    with open(os.open(LOCK, os.O_WRONLY | os.O_CREAT, 0o600), "w") as lock:  # noqa: PTH123
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Failure(
                "Transaction in progress: another rpm-ostree or bootc is running"
            ) from None
        if sys.version_info >= (3, 12):  # that of the installed system
            os.unshare(os.CLONE_NEWNS)
            for argv in (["--make-rprivate", "/"], ["-o", "remount,rw", "/sysroot"]):
                subprocess.run(["mount", *argv], check=True)
        yield


def ostree(*arguments: str, quiet: bool = False) -> None:
    """Run ostree, with its progress on the terminal unless quiet. Raises Failure with its error."""
    result = subprocess.run(
        ["ostree", *arguments],
        stdout=subprocess.DEVNULL if quiet else None,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if result.returncode != 0:
        # gpg's report on a signature has several lines.
        reason = result.stderr.strip().rpartition("error: ")[2]
        raise Failure(reason or f"ostree ended with status {result.returncode}")


def is_root() -> bool:
    return os.geteuid() == 0
