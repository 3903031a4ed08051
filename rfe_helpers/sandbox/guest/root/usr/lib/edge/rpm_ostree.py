"""rpm-ostree's everyday commands on top of ostree: the sandbox's stand-in.

Runs in the installed system only. It reads through libostree's own bindings and changes through
the `ostree` command. What it prints, and the JSON of `status`, `db diff` and `upgrade`, have the
shape of the real one; package layering, overrides and kernel arguments are not in the sandbox.
"""

import argparse
import configparser
import contextlib
import fcntl
import fnmatch
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import gi

gi.require_version("OSTree", "1.0")
from gi.repository import GLib, OSTree  # noqa: E402

VERSION = "2025.0 (sandbox stand-in)"
CONFIG = Path("/etc/rpm-ostreed.conf")
LOCK = Path("/run/rpm-ostree-sandbox.lock")
CACHED_UPDATE = Path("/var/lib/rpm-ostree/cached-update.json")
PACKAGE_LIST = "rpmostree.rpmdb.pkglist"
POLICIES = ("none", "check", "stage", "apply")
ADDED, REMOVED, UPGRADED, DOWNGRADED = range(4)
UNCHANGED = 77


class Failure(Exception):  # noqa: N818
    """What a user is told after `error: `."""


@dataclass(frozen=True, order=True)
class Package:
    name: str
    evr: str
    arch: str

    def __str__(self) -> str:
        return f"{self.name}-{self.evr}.{self.arch}"


# reading ----------------------------------------------------------------------------------------


class System:
    """The deployments of this machine, in boot order, and its repository."""

    def __init__(self, *, read_deployments: bool = True, repo: str | None = None) -> None:
        if repo is not None:
            self.repo = OSTree.Repo.new(_gio_file(repo))
            self.repo.open(None)
            return
        self.sysroot = OSTree.Sysroot.new_default()
        self.sysroot.load(None)
        self.repo = self.sysroot.repo()
        self.booted = self.sysroot.get_booted_deployment()
        self.deployments = list(self.sysroot.get_deployments()) if read_deployments else []

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
            raise Failure(f"commit {checksum} carries no package list")
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
        """The deployment before the booted one: what the next boot runs, or None."""
        where = self.index(self.require_booted())
        return self.deployments[0] if where > 0 else None

    def rollback(self) -> Any:
        """The deployment after the booted one, or None."""
        where = self.index(self.require_booted())
        return self.deployments[where + 1] if where + 1 < len(self.deployments) else None

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


# What the real one lists of layered packages; the sandbox never layers any.
_LAYERING = (
    *("packages", "modules", "base-removals", "base-local-replacements", "initramfs-etc"),
    *("requested-packages", "requested-local-packages", "requested-modules"),
    *("requested-base-removals", "requested-base-local-replacements"),
    "requested-local-fileoverride-packages",
)


def _evr(epoch: str, version: str, release: str) -> str:
    prefix = "" if epoch in ("", "0") else f"{epoch}:"
    return f"{prefix}{version}" + (f"-{release}" if release else "")


def _gio_file(path: str) -> Any:
    from gi.repository import Gio

    return Gio.File.new_for_path(path)


def package_diff(old: list[Package], new: list[Package]) -> list[tuple[Package, int, Any, Any]]:
    """(package, kind, before or None, after or None), sorted by name."""
    before = {(p.name, p.arch): p for p in old}
    after = {(p.name, p.arch): p for p in new}
    changes: list[tuple[Package, int, Any, Any]] = []
    for key in sorted(before.keys() | after.keys()):
        was, now = before.get(key), after.get(key)
        if was is None and now is not None:
            changes.append((now, ADDED, None, now))
        elif now is None and was is not None:
            changes.append((was, REMOVED, was, None))
        elif was is not None and now is not None and was != now:
            newer = subprocess.run(["dpkg", "--compare-versions", was.evr, "lt", now.evr])
            changes.append((now, UPGRADED if newer.returncode == 0 else DOWNGRADED, was, now))
    return changes


def diff_lines(changes: list[tuple[Package, int, Any, Any]]) -> Iterator[str]:
    for kind, title in enumerate(("Added", "Removed", "Upgraded", "Downgraded")):
        rows = [change for change in changes if change[1] == kind]
        if rows:
            yield f"{title}:"
        for package, _, was, now in rows:
            both = kind in (UPGRADED, DOWNGRADED)
            yield f"  {package.name} {was.evr} -> {now.evr}" if both else f"  {package}"


# commands ---------------------------------------------------------------------------------------


def status(options: argparse.Namespace) -> int:
    system = System()
    cached = read_cached_update(system)
    entries = [system.describe(deployment) for deployment in system.deployments]
    if options.booted:
        entries = [entry for entry in entries if entry["booted"]]
    if options.json:
        document = {
            "deployments": entries,
            "transaction": None,
            "cached-update": cached,
            "update-driver": None,
        }
        print(json.dumps(document, indent=2, sort_keys=True))
        return 0
    print("State: idle")
    if (policy := automatic_policy()) != "none":
        print(f"AutomaticUpdates: {policy}; rpm-ostreed-automatic.timer: {timer_state()}")
    print("Deployments:")
    for entry in entries:
        print_deployment(system, entry, verbose=options.verbose)
    if cached is not None:
        print(f"AvailableUpdate:\n        Version: {cached['version']}")
        print(f"         Commit: {cached['checksum']}")
    return 0


def print_deployment(system: System, entry: dict[str, Any], *, verbose: bool) -> None:
    mark = "●" if entry["booted"] else " "
    print(f"{mark} {entry['origin'] or entry['osname']}")
    rows = [
        ("Version", f"{entry['version']} ({iso(entry['timestamp'])})"),
        ("Commit", entry["checksum"]),
    ]
    if entry["staged"]:
        rows.append(("Staged", "yes"))
    if entry["pinned"]:
        rows.append(("Pinned", "yes"))
    if system.booted is not None and not entry["booted"]:
        booted = system.packages(system.booted.get_csum())
        rows.append(("Diff", summary(package_diff(booted, system.packages(entry["checksum"])))))
    if verbose:
        rows += [("OSName", entry["osname"]), ("Serial", str(entry["serial"]))]
        rows += [("Unlocked", entry["unlocked"])]
        rows += [("GPGVerify", "yes" if entry["gpg-enabled"] else "no")]
    for key, value in rows:
        print(f"{key:>25}: {value}")


def summary(changes: list[tuple[Package, int, Any, Any]]) -> str:
    counts = [
        f"{sum(change[1] == kind for change in changes)} {word}"
        for kind, word in enumerate(("added", "removed", "upgraded", "downgraded"))
        if any(change[1] == kind for change in changes)
    ]
    return ", ".join(counts) or "no package changed"


def iso(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"


def upgrade(options: argparse.Namespace) -> int:
    need_root()
    if options.trigger_automatic_update_policy:
        policy = automatic_policy()
        if policy == "none":
            print("note: automatic updates are disabled (AutomaticUpdatePolicy=none)")
            return 0
        options.check, options.reboot = policy == "check", policy == "apply"
    with transaction():
        if options.check or options.preview:
            code = check(options)
            # For the timer's service it is no failure that there is nothing new.
            return 0 if options.trigger_automatic_update_policy else code
        return stage(options)


def check(options: argparse.Namespace) -> int:
    """Fetch only the commit object of what the remote offers, and say what it would bring."""
    system = System()
    merge = system.pending() or system.require_booted()
    remote, ref = remote_of(system, merge)
    ostree("pull", "--commit-metadata-only", remote, ref, quiet=True)
    system = System()
    available = system.resolve(f"{remote}:{ref}")
    if available == merge.get_csum():
        CACHED_UPDATE.unlink(missing_ok=True)
        print("No updates available.")
        return UNCHANGED
    changes = package_diff(system.packages(merge.get_csum()), system.packages(available))
    write_cached_update(system, available, f"{remote}:{ref}")
    print("AvailableUpdate:")
    print(f"        Version: {system.version(available)} ({iso(system.timestamp(available))})")
    print(f"         Commit: {available}")
    print(f"           Diff: {summary(changes)}")
    if options.preview:
        print("\n".join(diff_lines(changes)))
    return 0


def stage(options: argparse.Namespace) -> int:
    """Pull and stage; the deployment is finalised when the machine shuts down."""
    system = System()
    booted = system.require_booted()
    remote_of(system, system.pending() or booted)
    before = [deployment.get_csum() for deployment in system.deployments]
    downgrade = ["--allow-downgrade"] if options.allow_downgrade else []
    ostree("admin", "upgrade", "--stage", *downgrade, quiet=options.quiet)
    system = System()
    CACHED_UPDATE.unlink(missing_ok=True)
    if [deployment.get_csum() for deployment in system.deployments] == before:
        print("No upgrade available.")
        return UNCHANGED if options.unchanged_exit_77 else 0
    pending = system.pending()
    if pending is None:
        raise Failure("ostree staged nothing; see `ostree admin status`")
    if not options.quiet:
        changes = package_diff(
            system.packages(booted.get_csum()), system.packages(pending.get_csum())
        )
        print("\n".join(diff_lines(changes)))
    return finish(options, 'Run "systemctl reboot" to start a reboot')


def rollback(options: argparse.Namespace) -> int:
    """Make the other deployment the default; an update that is only staged is dropped."""
    need_root()
    with transaction():
        system = System()
        pending = system.pending()
        target = system.require_booted() if pending is not None else system.rollback()
        if target is None:
            raise Failure("no rollback deployment found: there is only the booted one")
        name = f"{target.get_csum()}.{target.get_deployserial()}"
        print(f"Moving '{name}' to be first deployment")
        if pending is not None and pending.is_staged():
            ostree("admin", "undeploy", str(system.index(pending)), quiet=True)
        else:
            ostree("admin", "set-default", str(system.index(target)), quiet=True)
    return finish(options, 'Run "systemctl reboot" to start a reboot')


def finish(options: argparse.Namespace, hint: str) -> int:
    if options.reboot:
        subprocess.run(["systemctl", "reboot"], check=True)
    else:
        print(hint)
    return 0


def cleanup(options: argparse.Namespace) -> int:
    need_root()
    if not (options.pending or options.rollback):
        raise Failure("say what to remove: --pending, --rollback")
    with transaction():
        for wanted, find in (
            (options.pending, System.pending),
            (options.rollback, System.rollback),
        ):
            system = System()
            found = find(system) if wanted else None
            if found is not None:
                ostree("admin", "undeploy", str(system.index(found)), quiet=True)
    return 0


def db_list(options: argparse.Namespace) -> int:
    system = System(repo=options.repo)
    revs = [word for word in options.revs if "*" not in word and is_rev(system, word)]
    patterns = [word for word in options.revs if word not in revs]
    if not revs:
        if options.repo:
            raise Failure("name a ref or commit of the repository")
        revs = [system.require_booted().get_csum()]
    for rev in revs:
        checksum = system.resolve(rev)
        name = rev if rev == checksum else f"{rev} ({checksum})"
        print(f"ostree commit: {name}")
        for package in system.packages(checksum):
            if not patterns or any(fnmatch.fnmatch(package.name, p) for p in patterns):
                print(f" {package}")
    return 0


def is_rev(system: System, word: str) -> bool:
    try:
        system.resolve(word)
    except GLib.Error:
        return False
    return True


def db_diff(options: argparse.Namespace) -> int:
    system = System(repo=options.repo)
    (old, old_name), (new, new_name) = diff_ends(system, options.revs)
    changes = package_diff(system.packages(old), system.packages(new))
    if options.format == "json":
        rows = [
            [package.name, kind, {**side("PreviousPackage", was), **side("NewPackage", now)}]
            for package, kind, was, now in changes
        ]
        document = {"ostree-commit-from": old, "ostree-commit-to": new, "pkgdiff": rows}
        print(json.dumps(document, indent=2))
        return 0
    print(f"ostree diff commit from: {old_name} ({old})")
    print(f"ostree diff commit to:   {new_name} ({new})")
    for line in diff_lines(changes):
        print(line)
    return 0


def side(key: str, package: Package | None) -> dict[str, list[str]]:
    return {key: [package.name, package.evr, package.arch]} if package is not None else {}


def diff_ends(system: System, revs: list[str]) -> tuple[tuple[str, str], tuple[str, str]]:
    """Which two commits to compare, each with what to call it, as the real one decides."""
    if len(revs) == 2:
        return (system.resolve(revs[0]), revs[0]), (system.resolve(revs[1]), revs[1])
    booted = (system.require_booted().get_csum(), "booted deployment")
    if len(revs) == 1:
        return booted, (system.resolve(revs[0]), revs[0])
    if (pending := system.pending()) is not None:
        return booted, (pending.get_csum(), "pending deployment")
    if (previous := system.rollback()) is not None:
        return (previous.get_csum(), "rollback deployment"), booted
    raise Failure("there is no other deployment to compare with")


def reload(_options: argparse.Namespace) -> int:
    """Read the configuration again: here only a check, since no daemon keeps it."""
    need_root()
    automatic_policy()
    return 0


# helpers ----------------------------------------------------------------------------------------


def need_root() -> None:
    if os.geteuid() != 0:
        raise Failure("this command needs root: run it with sudo")


@contextlib.contextmanager
def transaction() -> Iterator[None]:
    """One change at a time."""
    with LOCK.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Failure("Transaction in progress: another rpm-ostree is running") from None
        yield


def remote_of(system: System, deployment: Any) -> tuple[str, str]:
    remote, colon, ref = system.origin(deployment).rpartition(":")
    if not colon:
        raise Failure(f"the origin {ref!r} names no remote to update from")
    return remote, ref


def ostree(*arguments: str, quiet: bool = False) -> None:
    """Run ostree; its progress goes to the terminal unless quiet, its error becomes ours."""
    done = subprocess.run(
        ["ostree", *arguments],
        stdout=subprocess.DEVNULL if quiet else None,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        # What gpg says of a signature has several lines.
        why = done.stderr.strip().rpartition("error: ")[2]
        raise Failure(why or f"ostree ended with {done.returncode}")


def automatic_policy() -> str:
    parser = configparser.ConfigParser(strict=False)
    try:
        parser.read(CONFIG)
    except configparser.Error as error:
        raise Failure(f"{CONFIG}: {error}") from None
    policy = parser.get("Daemon", "AutomaticUpdatePolicy", fallback="none").strip()
    if policy == "off":
        return "none"
    if policy not in POLICIES:
        raise Failure(f"{CONFIG}: unknown AutomaticUpdatePolicy {policy!r}: {', '.join(POLICIES)}")
    return policy


def timer_state() -> str:
    done = subprocess.run(
        ["systemctl", "is-active", "rpm-ostreed-automatic.timer"], capture_output=True, text=True
    )
    return done.stdout.strip() or "unknown"


def write_cached_update(system: System, checksum: str, origin: str) -> None:
    CACHED_UPDATE.parent.mkdir(parents=True, exist_ok=True)
    temporary = CACHED_UPDATE.with_suffix(".tmp")
    document = {
        "osname": system.require_booted().get_osname(),
        "checksum": checksum,
        "version": system.version(checksum),
        "timestamp": system.timestamp(checksum),
        "origin": origin,
    }
    temporary.write_text(json.dumps(document))
    temporary.replace(CACHED_UPDATE)


def read_cached_update(system: System) -> dict[str, Any] | None:
    """What `upgrade --check` found, unless it has been deployed since."""
    try:
        found: dict[str, Any] = json.loads(CACHED_UPDATE.read_text())
    except (OSError, ValueError):
        return None
    known = [deployment.get_csum() for deployment in system.deployments]
    return None if found["checksum"] in known else found


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="rpm-ostree", description=__doc__.splitlines()[0])
    top.add_argument("--version", action="store_true", help="print version information and exit")
    commands = top.add_subparsers(title="commands", metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], int], text: str) -> Any:
        entry = commands.add_parser(name, help=text, description=text)
        entry.set_defaults(run=run)
        return entry

    shown = command("status", status, "get the deployments of the booted system")
    shown.add_argument("--json", action="store_true", help="print JSON")
    shown.add_argument("-v", "--verbose", action="store_true", help="print more fields")
    shown.add_argument("-b", "--booted", action="store_true", help="only the booted deployment")
    for name in ("upgrade", "update"):
        entry = command(name, upgrade, "perform a system upgrade: pull and stage it")
        entry.add_argument("--check", action="store_true", help="only look whether there is one")
        entry.add_argument("--preview", action="store_true", help="and list its packages")
        entry.add_argument("-r", "--reboot", action="store_true", help="reboot when it is staged")
        entry.add_argument("--allow-downgrade", action="store_true", help="take an older commit")
        entry.add_argument("-q", "--quiet", action="store_true", help="print less")
        entry.add_argument("--unchanged-exit-77", action="store_true", help="77 if nothing is new")
        entry.add_argument("--trigger-automatic-update-policy", action="store_true")
    back = command("rollback", rollback, "make the previous deployment the default")
    back.add_argument("-r", "--reboot", action="store_true", help="reboot afterwards")
    clean = command("cleanup", cleanup, "remove deployments")
    clean.add_argument("-p", "--pending", action="store_true", help="the pending one")
    clean.add_argument("-r", "--rollback", action="store_true", help="the rollback one")
    command("reload", reload, "read the configuration again")
    database = command("db", lambda _: 2, "query the package lists of commits")
    kinds = database.add_subparsers(title="commands", metavar="COMMAND", required=True)
    listing = kinds.add_parser("list", help="list packages of commits")
    listing.set_defaults(run=db_list)
    difference = kinds.add_parser("diff", help="show package changes between two commits")
    difference.set_defaults(run=db_diff)
    difference.add_argument("--format", choices=("block", "json"), default="block")
    for entry, most in ((listing, "*"), (difference, "*")):
        entry.add_argument("--repo", help="a repository instead of the system's")
        entry.add_argument("revs", nargs=most, metavar="REV", help="refs or commits")
    return top


def main() -> int:
    options = parser().parse_args()
    if options.version:
        libostree = f"{OSTree.YEAR_VERSION}.{OSTree.RELEASE_VERSION}"
        print(f"rpm-ostree:\n Version: '{VERSION}'\n libostree: '{libostree}'")
        print(" This is the sandbox's stand-in, on top of the ostree command.")
        return 0
    if not hasattr(options, "run"):
        parser().print_help()
        return 1
    try:
        code: int = options.run(options)
    except Failure as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except GLib.Error as error:
        print(f"error: {error.message}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return code


if __name__ == "__main__":
    sys.exit(main())
