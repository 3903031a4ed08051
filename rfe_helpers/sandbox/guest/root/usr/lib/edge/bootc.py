"""bootc's everyday commands on top of ostree and skopeo: the sandbox's stand-in.

Runs only in the installed system and, for `container lint`, in an image that is being built;
started by /usr/bin/bootc. Its output and the document of `status` have the shape of bootc's (1.1.6
of RHEL 10.0; errors begin with `error: `, as since 1.8). It boots what ostree deploys: composefs,
installations and configuration maps are refused by name.
"""

import argparse
import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .failure import Failure, status_of

VERSION = "1.1.6 (sandbox stand-in)"
REFUSED = ("edit", "install", "loader-entries", "config", "internals")


def status(options: argparse.Namespace) -> int:
    from . import bootc_status

    form = "json" if options.json else options.format
    document = bootc_status.host()
    if options.booted:
        document["status"] |= {"staged": None, "rollback": None}
    if form == "json":
        print(json.dumps(document, separators=(",", ":"), ensure_ascii=False), end="")
    elif form == "yaml" or (form is None and not sys.stdout.isatty()):
        print("\n".join(bootc_status.as_yaml(document)))
    else:
        print(bootc_status.as_text(document))
    return 0


def switch(options: argparse.Namespace) -> int:
    from . import bootc_status, image_deployment
    from .system import System, transaction

    need_booted_root()
    reference = image_deployment.reference_of(
        options.target, options.transport, signed=options.enforce_container_sigpolicy
    )
    if options.mutate_in_place:
        return _mutate(reference)
    with transaction(), quietly(options):
        system = System()
        base = bootc_status.Slots(system).staged or system.require_booted()
        if system.image(base) == reference:
            print("Image specification is unchanged.")
            return 0
        update = image_deployment.stage(reference, base, always=True)
        if not options.retain:
            image_deployment.forget_ref(system, base)
    return _queued(reference, update, options)


def _mutate(reference: Any) -> int:
    """Change only the origin of the one deployment of a new system: the %post script of an
    installation that took the image from its own medium."""
    from .image_deployment import origin_of
    from .system import MANIFEST_DIGEST, System, transaction

    system = System()
    deployment = system.booted or next(iter(system.deployments), None)
    if deployment is None:
        raise Failure("there is no deployment")
    target = Path(f"/sysroot/{system.sysroot.get_deployment_dirpath(deployment)}.origin")
    text = origin_of(reference, system.text(deployment.get_csum(), MANIFEST_DIGEST))
    # In the chroot of an installer /sysroot is writable.
    with transaction() if system.booted is not None else contextlib.nullcontext():
        with tempfile.NamedTemporaryFile("w", dir=target.parent, delete=False) as temporary:
            temporary.write(text)
            temporary.flush()
            os.fsync(temporary.fileno())
        Path(temporary.name).chmod(0o644)
        Path(temporary.name).replace(target)
    print(f"Updated {target.stem} to pull from {reference.short}")
    return 0


def upgrade(options: argparse.Namespace) -> int:
    from . import bootc_status, image_deployment
    from .image_store import ImageStore
    from .system import System, transaction

    need_booted_root()
    with transaction(), quietly(options):
        system = System()
        booted = system.require_booted()
        base = bootc_status.Slots(system).staged or booted
        if bootc_status.is_layered(booted):
            raise Failure(
                "Deployment contains local rpm-ostree modifications; cannot upgrade via bootc. "
                "You can run `rpm-ostree reset` to undo the modifications."
            )
        reference = system.image(base)
        if reference is None:
            raise Failure("No image source specified")
        if options.check:
            update = image_deployment.look(reference, system, booted)
            image = update.image
            if not update.changed:
                print(f"No changes in: {reference.skopeo}")
                return 0
            print(f"Update available for: {reference.skopeo}")
            print(f"  Version: {image.version}\n  Digest: {image.digest}")
            image_deployment.report_layers(ImageStore(image_deployment.REPOSITORY), image)
            if system.image(booted) is not None:
                bootc_status.remember_update(system, booted.get_csum(), image)
            return 0
        update = image_deployment.stage(reference, base)
        if not update.changed:
            print(f"No changes in {reference.short} => {update.image.digest}")
            staged = base.is_staged()
            print("Staged update present, not changed." if staged else "No update available.")
            return _reboot() if staged and options.apply else 0
        _difference(system, booted, update)
    return _queued(reference, update, options)


def _difference(system: Any, booted: Any, update: Any) -> None:
    """The layers that an upgrade has changed."""
    from .image_description import parse_layers
    from .image_store import size
    from .system import MANIFEST

    before = {*parse_layers(system.text(booted.get_csum(), MANIFEST))}
    if not before:
        return
    after = {*update.image.layers}
    for title, layers in (
        ("Total new layers: ", after),
        ("Removed layers:   ", before - after),
        ("Added layers:     ", after - before),
    ):
        print(f"{title}{len(layers):<5} Size: {size(sum(layer.size for layer in layers))}")


def _queued(reference: Any, update: Any, options: argparse.Namespace) -> int:
    print(f"Queued for next boot: {reference.short}")
    if update.image.version:
        print(f"  Version: {update.image.version}")
    print(f"  Digest: {update.image.digest}")
    return _reboot() if options.apply else 0


def _reboot() -> int:
    from .image_deployment import reboot

    print("Rebooting system", flush=True)
    reboot()
    return 0


def rollback(options: argparse.Namespace) -> int:
    from .bootc_status import Slots
    from .system import System, ostree, transaction

    need_booted_root()
    with transaction():
        system = System()
        system.require_booted()
        slots = Slots(system)
        if slots.rollback is None:
            raise Failure("No rollback available")
        if system.image(slots.rollback) is None:
            raise Failure("Rollback is not container image based")
        target = slots.booted if slots.rollback_queued else slots.rollback
        if slots.rollback_queued:
            print("notice: Reverting queued rollback state")
        if slots.staged is not None:
            ostree("admin", "undeploy", str(system.index(slots.staged)), quiet=True)
            system = System()
        index = next(i for i, each in enumerate(system.deployments) if each.equal(target))
        ostree("admin", "set-default", str(index), quiet=True)
        next_boot = "current" if slots.rollback_queued else "rollback"
        print(f"Next boot: {next_boot} deployment")
    return _reboot() if options.apply else 0


def usr_overlay(_options: argparse.Namespace) -> int:
    from .system import ostree

    need_booted_root()
    ostree("admin", "unlock")
    return 0


def container_lint(options: argparse.Namespace) -> int:
    from .bootc_lint import FATAL, WARNINGS, lint, name_of

    if options.list:
        for kind, checks in (("fatal", FATAL), ("warning", WARNINGS)):
            print("\n".join(f"{name_of(check)}: {kind}" for check in checks))
        return 0
    known = {name_of(check) for check in (*FATAL, *WARNINGS)}
    if unknown := {*options.skip} - known:
        raise Failure(f"Linting: no check {min(unknown)!r}: `bootc container lint --list`")
    failures, warnings, passed = lint(options.rootfs, {*options.skip})
    for name, reason in failures:
        print(f"Failed lint: {name}: {reason}", file=sys.stderr)
    for name, reason in warnings:
        print(f"Lint warning: {name}: {reason}", file=sys.stderr)
    print(f"Checks passed: {passed}")
    if options.skip:
        print(f"Checks skipped: {len({*options.skip})}")
    if warnings:
        print(f"Warnings: {len(warnings)}")
    if failed := len({name for name, _ in failures}):
        raise Failure(f"Linting: Checks failed: {failed}")
    if warnings and options.fatal_warnings:
        raise Failure(f"Linting: Warnings found: {len(warnings)}")
    return 0


@contextlib.contextmanager
def quietly(options: argparse.Namespace) -> Iterator[None]:
    """With --quiet, no progress: that is on stderr."""
    with contextlib.ExitStack() as stack:
        if options.quiet:
            nowhere = stack.enter_context(Path("/dev/null").open("w"))
            stack.enter_context(contextlib.redirect_stderr(nowhere))
        yield


def need_booted_root() -> None:
    if os.geteuid() != 0:
        raise Failure("This command must be executed as the root user")
    if Path("/run/.containerenv").exists():
        raise Failure("Detected container; this command requires a booted host system.")


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="bootc", description="Deploy and transactionally in-place with bootable containers."
    )
    top.add_argument("-V", "--version", action="store_true", help="print version information")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", dest="command")

    def command(
        place: Any, name: str, run: Callable[[argparse.Namespace], int], text: str, *aliases: str
    ) -> argparse.ArgumentParser:
        entry: argparse.ArgumentParser = place.add_parser(
            name, help=text, description=text, aliases=aliases
        )
        entry.set_defaults(run=run)
        return entry

    entry = command(commands, "upgrade", upgrade, "fetch and queue an updated image", "update")
    entry.add_argument("--check", action="store_true", help="only look whether there is one")
    _shared_options(entry)
    entry = command(commands, "switch", switch, "target a new container image")
    entry.add_argument("--transport", default="registry", help="registry, oci, oci-archive, …")
    entry.add_argument("--enforce-container-sigpolicy", action="store_true",
                       help="take only what policy.json's signatures allow")  # fmt: skip
    entry.add_argument("--retain", action="store_true", help="keep the ref booted so far")
    entry.add_argument("--mutate-in-place", action="store_true", help=argparse.SUPPRESS)
    entry.add_argument("target", metavar="TARGET", help="the image, as registry.example/os:tag")
    _shared_options(entry)
    entry = command(commands, "rollback", rollback, "make the previous deployment boot next")
    entry.add_argument("--apply", action="store_true", help="reboot afterwards")
    entry = command(commands, "status", status, "show the deployments")
    entry.add_argument("--json", action="store_true", help="the same as --format=json")
    entry.add_argument("--format", choices=("humanreadable", "yaml", "json"))
    entry.add_argument("--format-version", choices=("0", "1"), default="1")
    entry.add_argument("--booted", action="store_true", help="only the booted deployment")
    overlay = "make /usr writable until the next boot"
    command(commands, "usr-overlay", usr_overlay, overlay, "usroverlay")
    container = commands.add_parser("container", help="what is done in a container")
    kinds = container.add_subparsers(title="commands", metavar="COMMAND", required=True)
    entry = command(kinds, "lint", container_lint, "check the image that is being built")
    entry.add_argument("--rootfs", type=Path, default=Path("/"), help="another root")
    entry.add_argument("--fatal-warnings", action="store_true", help="fail on warnings, too")
    entry.add_argument("--skip", action="append", default=[], metavar="NAME")
    entry.add_argument("--list", action="store_true", help="list the checks")
    for name in REFUSED:
        entry = commands.add_parser(name, add_help=False)
        entry.set_defaults(run=_refuse)
    return top


def _shared_options(entry: argparse.ArgumentParser) -> None:
    entry.add_argument("--quiet", action="store_true", help="no progress")
    entry.add_argument("--apply", action="store_true", help="reboot when something has changed")


def _refuse(options: argparse.Namespace) -> int:
    raise Failure(
        f"the sandbox's bootc has no `{options.command}`; it has status, switch, upgrade, "
        "rollback, usr-overlay and container lint"
    )


def main() -> int:
    top = parser()
    options, rest = top.parse_known_args()
    if options.version:
        print(f"bootc {VERSION}")
        return 0
    if not hasattr(options, "run"):
        top.print_help()
        return 1
    if rest and options.run is not _refuse:
        top.error(f"unrecognized arguments: {' '.join(rest)}")
    titles = {"switch": "Switching: ", "upgrade": "Upgrading: ", "update": "Upgrading: "}
    return status_of(lambda: int(options.run(options)), titles.get(options.command, ""))
