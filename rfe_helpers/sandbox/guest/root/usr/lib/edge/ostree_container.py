"""`ostree container image deploy`, `metadata`, `pull`, `list`: in place of ostree-ext's.

An installer deploys an image with it, as Anaconda does for `ostreecontainer`. `metadata` also
checks that the image could be deployed.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from . import image_deployment
from .failure import status_of
from .image_proxy import open_image
from .image_reference import ImageReference
from .image_store import IMAGES, ImageStore, check
from .system import System


def reference_of(options: argparse.Namespace) -> ImageReference:
    if options.imgref:
        reference = ImageReference.parse(options.imgref)
    else:
        signed = not options.no_signature_verification
        reference = image_deployment.reference_of(options.image, options.transport, signed=signed)
    image_deployment.require_policy(reference)
    return reference


def deploy(options: argparse.Namespace) -> int:
    """Pull an image into the repository of a system that is not booted, and deploy it."""
    reference = reference_of(options)
    store = ImageStore(options.sysroot / "ostree/repo")
    with open_image(reference) as proxy:
        image = proxy.image()
        image_deployment.report_layers(store, image)
        commit = store.pull(proxy, image, reference)
    arguments = image_deployment.arguments_of(System(repo=str(store.path)), commit)
    with tempfile.NamedTemporaryFile("w", prefix="origin-") as origin:
        origin.write(image_deployment.origin_of(reference, image.digest))
        origin.flush()
        argv = ["ostree", "admin", "deploy", f"--sysroot={options.sysroot}"]
        argv += [f"--os={options.stateroot}", f"--origin-file={origin.name}"]
        argv += [f"--karg-append={each}" for each in (*options.karg, *arguments)]
        subprocess.run([*argv, commit], check=True)
    return 0


def metadata(options: argparse.Namespace) -> int:
    """Print the manifest of an image, once it is known that it could be deployed."""
    reference = reference_of(options)
    with open_image(reference) as proxy:
        image = proxy.image()
    check(image, reference)
    print(image.manifest)
    return 0


def pull(options: argparse.Namespace) -> int:
    reference = ImageReference.parse(options.imgref)
    image_deployment.require_policy(reference)
    store = ImageStore(options.repo)
    with open_image(reference) as proxy:
        commit = store.pull(proxy, proxy.image(), reference)
    print(f"Wrote: {reference} => {commit}")
    return 0


def listing(options: argparse.Namespace) -> int:
    for ref in sorted(ImageStore(options.repo).refs(IMAGES)):
        print(ref)
    return 0


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="ostree container", description=__doc__.splitlines()[0])
    areas = top.add_subparsers(metavar="COMMAND", required=True)
    images = areas.add_parser("image", help="images in a repository")
    commands = images.add_subparsers(metavar="COMMAND", required=True)
    for name, run, text in (
        ("deploy", deploy, "pull an image and deploy it"),
        ("metadata", metadata, "check an image and print its manifest"),
    ):
        entry = commands.add_parser(name, help=text)
        entry.set_defaults(run=run)
        source = entry.add_mutually_exclusive_group(required=True)
        source.add_argument("--imgref", help="ostree-unverified-registry:IMAGE")
        source.add_argument("--image", help="its name, with --transport")
        entry.add_argument("--transport", default="registry")
        entry.add_argument("--no-signature-verification", action="store_true")
        entry.add_argument("--sysroot", type=Path, default=Path("/"))
        entry.add_argument("--stateroot", default="default")
        entry.add_argument("--karg", action="append", default=[], help="an argument of the kernel")
    entry = commands.add_parser("pull", help="pull an image into a repository")
    entry.set_defaults(run=pull)
    entry.add_argument("repo", type=Path)
    entry.add_argument("imgref")
    entry = commands.add_parser("list", help="list the refs of images")
    entry.set_defaults(run=listing)
    entry.add_argument("--repo", type=Path, required=True)
    return top


def main() -> int:
    arguments = sys.argv[1:]
    if arguments[:1] == ["container"]:  # ostree hands on its own first word
        del arguments[0]
    options = parser().parse_args(arguments)
    return status_of(lambda: int(options.run(options)))
