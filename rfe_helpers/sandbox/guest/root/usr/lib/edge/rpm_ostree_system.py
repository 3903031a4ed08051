"""The deployments of the machine and the packages in commits, read with libostree's bindings.

The part of the rpm-ostree stand-in that changes nothing; rpm_ostree.py has the commands.
"""

import subprocess
from dataclasses import dataclass
from typing import Any

import gi

gi.require_version("OSTree", "1.0")
from gi.repository import Gio, GLib, OSTree  # noqa: E402

LIBOSTREE_VERSION = f"{OSTree.YEAR_VERSION}.{OSTree.RELEASE_VERSION}"
PACKAGE_LIST = "rpmostree.rpmdb.pkglist"
ADDED, REMOVED, UPGRADED, DOWNGRADED = range(4)
OstreeError = GLib.Error  # what libostree raises; `message` has the reason


class Failure(Exception):  # noqa: N818
    """A failure that the user is told of; the message is printed after `error: `."""


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

    def version(self, checksum: str) -> str:
        value = self.metadata(checksum).lookup_value("version", None)
        return value.get_string() if value is not None else ""

    def timestamp(self, checksum: str) -> int:
        return int(OSTree.commit_get_timestamp(self.commit(checksum)))

    def packages(self, checksum: str) -> list[Package]:
        value = self.metadata(checksum).lookup_value(PACKAGE_LIST, None)
        if value is None:
            raise Failure(f"commit {checksum} has no package list")
        rows = value.unpack()
        return sorted(Package(name, _evr(e, v, r), arch) for name, e, v, r, arch in rows)

    def resolve(self, rev: str) -> str:
        return str(self.repo.resolve_rev(rev, False)[1])

    def origin(self, deployment: Any) -> str:
        origin = deployment.get_origin()
        return str(origin.get_string("origin", "refspec")) if origin is not None else ""

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
        remote = refspec.partition(":")[0]
        return {
            "id": f"{deployment.get_osname()}-{checksum}.{deployment.get_deployserial()}",
            "osname": deployment.get_osname(),
            "serial": deployment.get_deployserial(),
            "checksum": checksum,
            "version": self.version(checksum),
            "timestamp": self.timestamp(checksum),
            "origin": refspec,
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
