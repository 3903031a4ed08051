"""From a container image to the next boot: what `bootc switch` and `upgrade` and rpm-ostree's
`rebase` and `upgrade` have in common.

The image is pulled into the repository (image_store.py), then staged: the running system stays as
it is, and ostree completes the deployment when the machine shuts down. What is interrupted before
changes nothing that boots.
"""

import json
import os
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import bootc_lint
from .failure import Failure
from .image_description import Image, parse_layers
from .image_proxy import ImageProxy, open_image
from .image_reference import TRANSPORTS, ImageReference
from .image_store import ImageStore, note, size
from .system import MANIFEST, MANIFEST_DIGEST, System, ostree

REPOSITORY = Path("/sysroot/ostree/repo")
POLICY = Path("/etc/containers/policy.json")
KERNEL_ARGUMENTS = "/usr/lib/bootc/kargs.d"
_LARGEST_FILE = 64 << 10
_MOST_ARGUMENTS = 200


@dataclass(frozen=True)
class Update:
    """An image in a registry beside the deployment that it would follow: `changed` is whether it is
    another one."""

    image: Image
    changed: bool


def look(reference: ImageReference, system: System, base: Any) -> Update:
    """What the registry has under a reference, without its layers."""
    require_policy(reference)
    with open_image(reference) as proxy:
        return _compare(proxy, system, base)


def stage(reference: ImageReference, base: Any, *, always: bool = False) -> Update:
    """Pull an image and stage it for the next boot, unless the deployment `base` has the same one;
    `always`: also then. Raises Failure."""
    require_policy(reference)
    system = System()
    store = ImageStore(REPOSITORY)
    with open_image(reference) as proxy:
        update = _compare(proxy, system, base)
        if not update.changed and not always:
            return update
        image = update.image
        prune(store, image)  # what an attempt has left that failed may take the room
        report_layers(store, image)
        missing = store.missing(image)
        began = time.monotonic()
        commit = store.pull(proxy, image, reference)
        if missing:
            seconds = time.monotonic() - began
            fetched = sum(layer.size for layer in missing)
            speed = size(int(fetched / max(seconds, 0.001)))
            print(f"Fetched layers: {size(fetched)} in {seconds:.0f} seconds ({speed}/s)")
    deploy(reference, image.digest, commit)
    prune(store)
    return update


def _compare(proxy: ImageProxy, system: System, base: Any) -> Update:
    image = proxy.image()
    return Update(image, image.digest != system.text(base.get_csum(), MANIFEST_DIGEST))


def report_layers(store: ImageStore, image: Image) -> None:
    missing = store.missing(image)
    needed = sum(layer.size for layer in missing)
    present = len(set(image.layers)) - len(missing)
    print(f"layers already present: {present}; layers needed: {len(missing)} ({size(needed)})")


def deploy(reference: ImageReference, digest: str, commit: str) -> None:
    """Stage a commit with the image as its origin. As for every staged deployment, /etc and the
    kernel arguments are those of the booted one; what its kargs.d and the image's have in common
    stays, the rest is taken away and added."""
    system = System()
    booted = system.require_booted()
    old, new = (arguments_of(system, each) for each in (booted.get_csum(), commit))
    changes = [f"--karg-delete={each}" for each in old if each not in new]
    changes += [f"--karg-append={each}" for each in new if each not in old]
    _stage(commit, booted, origin_of(reference, digest), changes)


def deploy_ref(refspec: str) -> None:
    """Stage the commit of a remote's ref, which has been pulled, with the ref as its origin."""
    _stage(refspec, System().require_booted(), f"[origin]\nrefspec={refspec}\n", [])


def _stage(rev: str, booted: Any, origin_text: str, changes: list[str]) -> None:
    note("Staging the deployment")
    with tempfile.NamedTemporaryFile("w", prefix="origin-", dir="/run") as origin:
        origin.write(origin_text)
        origin.flush()
        argv = ("--stage", f"--os={booted.get_osname()}", f"--origin-file={origin.name}")
        ostree("admin", "deploy", *argv, *changes, rev, quiet=True)


def origin_of(reference: ImageReference, digest: str) -> str:
    """The origin file of a deployment of an image. The digest is as rpm-ostree writes it."""
    return (
        f"[origin]\ncontainer-image-reference={reference}\n"
        f"container-image-reference-digest={digest}\n"
    )


def arguments_of(system: System, checksum: str) -> list[str]:
    """The kernel arguments of a commit's kargs.d, for this machine. Raises Failure."""
    arguments: list[str] = []
    for name in system.names_in(checksum, KERNEL_ARGUMENTS):
        if not name.endswith(".toml"):
            continue
        try:
            text = system.read(checksum, f"{KERNEL_ARGUMENTS}/{name}", _LARGEST_FILE)
            arguments += bootc_lint.kernel_arguments(text, os.uname().machine)
        except (ValueError, RecursionError) as error:
            raise Failure(f"{KERNEL_ARGUMENTS}/{name}: {error}") from None
    if len(arguments) > _MOST_ARGUMENTS:
        raise Failure(f"{KERNEL_ARGUMENTS} has more than {_MOST_ARGUMENTS} arguments")
    return arguments


def forget_ref(system: System, deployment: Any, *, keep: str = "") -> None:
    """Remove the ref that a deployment was updated from, unless it is `keep`; its commit stays as
    long as it is deployed."""
    refspec = system.origin(deployment)
    if refspec and refspec != keep and system.repo.resolve_rev(refspec, True)[1]:
        ostree("refs", "--delete", refspec, quiet=True)


def prune(store: ImageStore, coming: Image | None = None) -> None:
    """Remove images that no deployment has, and layers that neither these images have nor the one
    that is `coming`."""
    system = System()
    references = [image for each in system.deployments if (image := system.image(each))]
    layers = [
        layer
        for deployment in system.deployments
        for layer in parse_layers(system.text(deployment.get_csum(), MANIFEST))
    ]
    layers += coming.layers if coming else ()
    store.prune({reference.ref for reference in references}, layers)


def require_policy(reference: ImageReference) -> None:
    """Refuse a signed reference where policy.json takes anything: nothing would be checked."""
    if not reference.signed:
        return
    try:
        policy = json.loads(POLICY.read_text())
        rules = policy["default"]
        kinds = {rule["type"] for rule in rules}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise Failure(f"{POLICY} is not a policy for containers: {error!r}") from None
    if "insecureAcceptAnything" in kinds:
        raise Failure(
            "containers-policy.json specifies a default of `insecureAcceptAnything`; refusing usage"
        )


def reference_of(name: str, transport: str, *, signed: bool) -> ImageReference:
    """The image that a command line names. Raises Failure."""
    if transport not in TRANSPORTS:
        raise Failure(f"unknown transport {transport!r}: {', '.join(TRANSPORTS)}")
    return ImageReference(transport, name, signed)


def reboot() -> None:
    """As bootc: what asked for it is told before the machine goes down."""
    argv = ["systemd-run", "--quiet", "--", "systemctl", "reboot"]
    subprocess.run([*argv, "--message=Initiated by bootc"], check=True)
