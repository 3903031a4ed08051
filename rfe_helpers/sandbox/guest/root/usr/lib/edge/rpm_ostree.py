"""rpm-ostree's everyday commands on top of ostree: the sandbox's stand-in.

Runs only in the installed system, started by /usr/bin/rpm-ostree. It reads with libostree's own
bindings (system.py) and changes with the `ostree` command. Its output, and the JSON of
`status`, `db diff` and `upgrade`, have the shape of rpm-ostree's; the sandbox has no package
layering, no overrides and no kernel arguments. What was rebased to a container image it updates
from there, as bootc does (image_deployment.py).
"""

import argparse
import configparser
import fnmatch
import json
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .failure import Failure, status_of
from .image_reference import ImageReference
from .system import (
    DOWNGRADED,
    LIBOSTREE_VERSION,
    UPGRADED,
    OstreeError,
    Package,
    PackageChange,
    System,
    is_root,
    ostree,
    package_diff,
    transaction,
)

VERSION = "2025.0 (sandbox stand-in)"
CONFIG = Path("/etc/rpm-ostreed.conf")
CACHED_UPDATE = Path("/var/lib/rpm-ostree/cached-update.json")
POLICIES = ("none", "check", "stage", "apply")
UNCHANGED = 77


def diff_lines(changes: list[PackageChange]) -> Iterator[str]:
    for kind, title in enumerate(("Added", "Removed", "Upgraded", "Downgraded")):
        rows = [change for change in changes if change[1] == kind]
        if rows:
            yield f"{title}:"
        for package, _, was, now in rows:
            replaced = kind in (UPGRADED, DOWNGRADED)
            yield f"  {package.name} {was.evr} -> {now.evr}" if replaced else f"  {package}"


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
    image = entry.get("container-image-reference")
    print(f"{mark} {image or entry['origin'] or entry['osname']}")
    rows = [("Version", f"{entry['version']} ({iso(entry['timestamp'])})")]
    if image:
        rows.insert(0, ("Digest", entry["container-image-reference-digest"]))
    if verbose or not image:
        rows.append(("Commit", entry["checksum"]))
    if entry["staged"]:
        rows.append(("Staged", "yes"))
    if entry["pinned"]:
        rows.append(("Pinned", "yes"))
    if system.booted is not None and not entry["booted"]:
        changes = system.changes(system.booted.get_csum(), entry["checksum"])
        rows += [] if changes is None else [("Diff", summary(changes))]
    if verbose:
        rows += [("OSName", entry["osname"]), ("Serial", str(entry["serial"]))]
        rows += [("Unlocked", entry["unlocked"])]
        rows += [("GPGVerify", "yes" if entry["gpg-enabled"] else "no")]
    for key, value in rows:
        print(f"{key:>25}: {value}")


def summary(changes: list[PackageChange]) -> str:
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
            # That there is no update is not a failure of the timer's service.
            return 0 if options.trigger_automatic_update_policy else code
        return stage(options)


def check(options: argparse.Namespace) -> int:
    """Fetch only the commit object that the remote offers, and print the changes in it."""
    system = System()
    merge = system.pending() or system.require_booted()
    if (image := system.image(merge)) is not None:
        return check_image(image, system, merge)
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


def check_image(image: ImageReference, system: System, merge: Any) -> int:
    """The same for a container image: its manifest and configuration are fetched."""
    from . import image_deployment

    CACHED_UPDATE.unlink(missing_ok=True)  # that of a ref
    update = image_deployment.look(image, system, merge)
    if not update.changed:
        print("No updates available.")
        return UNCHANGED
    print(f"AvailableUpdate:\n        Version: {update.image.version} ({update.image.created})")
    print(f"         Digest: {update.image.digest}")
    return 0


def rebase(options: argparse.Namespace) -> int:
    """Pull another ref or image, and stage it."""
    from . import image_deployment

    need_root()
    with transaction():
        system = System()
        booted = system.require_booted()
        keep = ""
        if options.target.startswith(("ostree-unverified-", "ostree-image-", "ostree-remote-")):
            image = ImageReference.parse(options.target)
            print(f"Pulling manifest: {image}", flush=True)
            update = image_deployment.stage(image, booted, always=True)
            print(f"Staged {image} (digest: {update.image.digest})")
        else:
            remote, colon, ref = options.target.rpartition(":")
            if not colon:
                raise Failure(f"{ref!r} is neither REMOTE:REF nor ostree-unverified-registry:IMAGE")
            ostree("pull", remote, ref)
            keep = f"{remote}:{ref}"
            image_deployment.deploy_ref(keep)
        CACHED_UPDATE.unlink(missing_ok=True)
        image_deployment.forget_ref(system, booted, keep=keep)
        list_changes(System(), booted)
    return finish(options, 'Run "systemctl reboot" to start a reboot')


def list_changes(system: System, booted: Any) -> None:
    """The packages in which the staged deployment differs from the booted one."""
    pending = system.pending()
    if pending is None:
        raise Failure("ostree has staged no deployment; see `ostree admin status`")
    for line in diff_lines(system.changes(booted.get_csum(), pending.get_csum()) or []):
        print(line)


def stage(options: argparse.Namespace) -> int:
    """Pull and stage; ostree finalises the deployment when the machine shuts down."""
    system = System()
    booted = system.require_booted()
    merge = system.pending() or booted
    if (image := system.image(merge)) is not None:
        from . import image_deployment

        CACHED_UPDATE.unlink(missing_ok=True)
        if not image_deployment.stage(image, merge).changed:
            print("No upgrade available.")
            return UNCHANGED if options.unchanged_exit_77 else 0
        if not options.quiet:
            list_changes(System(), booted)
        return finish(options, 'Run "systemctl reboot" to start a reboot')
    remote_of(system, merge)
    before = [deployment.get_csum() for deployment in system.deployments]
    downgrade = ["--allow-downgrade"] if options.allow_downgrade else []
    ostree("admin", "upgrade", "--stage", *downgrade, quiet=options.quiet)
    system = System()
    CACHED_UPDATE.unlink(missing_ok=True)
    if [deployment.get_csum() for deployment in system.deployments] == before:
        print("No upgrade available.")
        return UNCHANGED if options.unchanged_exit_77 else 0
    if not options.quiet:
        list_changes(system, booted)
    return finish(options, 'Run "systemctl reboot" to start a reboot')


def rollback(options: argparse.Namespace) -> int:
    """Make the other deployment the default; remove an update that is only staged."""
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
            system = System()
        if (index := system.index(target)) > 0:
            ostree("admin", "set-default", str(index), quiet=True)
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
        for requested, select in (
            (options.pending, System.pending),
            (options.rollback, System.rollback),
        ):
            system = System()
            deployment = select(system) if requested else None
            if deployment is not None:
                ostree("admin", "undeploy", str(system.index(deployment)), quiet=True)
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
    except OstreeError:
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
    """The two commits to compare, each with its name, chosen as rpm-ostree does."""
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
    """Check the configuration; the sandbox has no daemon that would have to read it again."""
    need_root()
    automatic_policy()
    return 0


# helpers ----------------------------------------------------------------------------------------


def need_root() -> None:
    if not is_root():
        raise Failure("this command needs root: run it with sudo")


def remote_of(system: System, deployment: Any) -> tuple[str, str]:
    remote, colon, ref = system.origin(deployment).rpartition(":")
    if not colon:
        raise Failure(f"the origin {ref!r} names no remote to update from")
    return remote, ref


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
    result = subprocess.run(
        ["systemctl", "is-active", "rpm-ostreed-automatic.timer"], capture_output=True, text=True
    )
    return result.stdout.strip() or "unknown"


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
    """The update that `upgrade --check` has seen, unless it has been deployed since."""
    try:
        update: dict[str, Any] = json.loads(CACHED_UPDATE.read_text())
    except (OSError, ValueError):
        return None
    deployed = [deployment.get_csum() for deployment in system.deployments]
    return None if update["checksum"] in deployed else update


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="rpm-ostree", description=__doc__.splitlines()[0])
    top.add_argument("--version", action="store_true", help="print version information and exit")
    commands = top.add_subparsers(title="commands", metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], int], text: str) -> Any:
        entry = commands.add_parser(name, help=text, description=text)
        entry.set_defaults(run=run)
        return entry

    overview = command("status", status, "get the deployments of the booted system")
    overview.add_argument("--json", action="store_true", help="print JSON")
    overview.add_argument("-v", "--verbose", action="store_true", help="print more fields")
    overview.add_argument("-b", "--booted", action="store_true", help="only the booted deployment")
    for name in ("upgrade", "update"):
        entry = command(name, upgrade, "perform a system upgrade: pull and stage it")
        entry.add_argument("--check", action="store_true", help="only look whether there is one")
        entry.add_argument("--preview", action="store_true", help="and list its packages")
        entry.add_argument("-r", "--reboot", action="store_true", help="reboot when it is staged")
        entry.add_argument("--allow-downgrade", action="store_true", help="take an older commit")
        entry.add_argument("-q", "--quiet", action="store_true", help="print less")
        entry.add_argument("--unchanged-exit-77", action="store_true", help="77 if nothing is new")
        entry.add_argument("--trigger-automatic-update-policy", action="store_true")
    move = command("rebase", rebase, "switch to another ref or container image")
    move.add_argument("-r", "--reboot", action="store_true", help="reboot when it is staged")
    move.add_argument("target", metavar="REFSPEC", help="or ostree-unverified-registry:IMAGE")
    undo = command("rollback", rollback, "make the previous deployment the default")
    undo.add_argument("-r", "--reboot", action="store_true", help="reboot afterwards")
    removal = command("cleanup", cleanup, "remove deployments")
    removal.add_argument("-p", "--pending", action="store_true", help="the pending one")
    removal.add_argument("-r", "--rollback", action="store_true", help="the rollback one")
    command("reload", reload, "read the configuration again")
    database = command("db", lambda _: 2, "query the package lists of commits")
    kinds = database.add_subparsers(title="commands", metavar="COMMAND", required=True)
    listing = kinds.add_parser("list", help="list packages of commits")
    listing.set_defaults(run=db_list)
    difference = kinds.add_parser("diff", help="show package changes between two commits")
    difference.set_defaults(run=db_diff)
    difference.add_argument("--format", choices=("block", "json"), default="block")
    for entry in (listing, difference):
        entry.add_argument("--repo", help="a repository instead of the system's")
        entry.add_argument("revs", nargs="*", metavar="REV", help="refs or commits")
    return top


def main() -> int:
    options = parser().parse_args()
    if options.version:
        print(f"rpm-ostree:\n Version: '{VERSION}'\n libostree: '{LIBOSTREE_VERSION}'")
        print(" This is the sandbox's stand-in, on top of the ostree command.")
        return 0
    if not hasattr(options, "run"):
        parser().print_help()
        return 1
    return status_of(lambda: int(options.run(options)))
