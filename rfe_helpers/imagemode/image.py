"""Build images that boot: with podman, from the sandbox's base image in the lab's registry.

HOST:PORT/edge-base:13     the base image in the lab's registry; podman fetches it to build
HOST:PORT/edge/os:TAG      what is built on it, named as it is pushed
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from rfe_helpers import build
from rfe_helpers.build.blueprint import Blueprint, PackageSpec
from rfe_helpers.core import files, run
from rfe_helpers.core.progress import OnProgress, say
from rfe_helpers.core.wait import Deadline
from rfe_helpers.errors import CommandFailedError, ProfileError, ServeError, StepMissingError
from rfe_helpers.imagemode.containerfile import translate, write
from rfe_helpers.lab.lab import Lab
from rfe_helpers.lab.profile import Profile
from rfe_helpers.serve import registry
from rfe_helpers.serve.podman import Podman
from rfe_helpers.serve.registry import Registry

BASE = "edge-base:13"
REPOSITORY = "edge/os"
# zstd is unpacked several times faster than gzip, which an emulated machine feels.
COMPRESSION = "zstd"
_BUILD_SECONDS = 1800
_INSPECT_SECONDS = 120


@dataclass(frozen=True)
class PushedImage:
    """An image in a registry: that one's `address` on this machine, the image's name there
    (`edge/os:1`) and the digest of its manifest; `layers` are (digest, bytes), the lowest first.

    >>> image.reference
    '127.0.0.1:.../edge-base:13'
    >>> image.new_layers(image)
    ()
    """

    address: str
    name: str
    digest: str
    layers: tuple[tuple[str, int], ...]

    @property
    def reference(self) -> str:
        """The image as a Containerfile names it: 127.0.0.1:5000/edge/os:1."""
        return f"{self.address}/{self.name}"

    def new_layers(self, before: PushedImage) -> tuple[tuple[str, int], ...]:
        """What a machine that has the image `before` fetches of this one."""
        known = {digest for digest, _ in before.layers}
        return tuple(layer for layer in self.layers if layer[0] not in known)


def base_image(
    lab: Lab, on_progress: OnProgress = None, *, deadline: Deadline | float | None = None
) -> PushedImage:
    """The image that the lab's release builds on: the sandbox's, made and pushed to the lab's
    registry if need be, or the release's own in its registry.

    >>> from rfe_helpers import imagemode
    >>> print(f"FROM {imagemode.base_image(lab).reference}")
    FROM 127.0.0.1:.../edge-base:13

    Raises MediaError or ServeError; ProfileError for a release without image mode.
    """
    if lab.profile.backend == "sandbox":
        return push_base(lab, on_progress, deadline=deadline)
    name = lab.profile.image_mode.base
    if not name:
        raise ProfileError(
            f"{lab.profile.title} has no image mode",
            remedy="choose a later release; `rfe imagemode plan` says which",
        )
    argv = ["skopeo", "inspect", f"docker://{name}"]
    try:
        facts = json.loads(run.run(argv, seconds=_INSPECT_SECONDS).stdout)
    except CommandFailedError as error:
        raise ServeError(
            f"the base image {name} cannot be had: {run.tail_of(error.tail, 1)}",
            remedy=f"log in: `podman login {name.partition('/')[0]}`",
        ) from None
    layers = tuple((layer["Digest"], int(layer["Size"])) for layer in facts["LayersData"])
    address, _, path = name.partition("/")
    return PushedImage(address, path, facts["Digest"], layers)


def push_base(
    lab: Lab, on_progress: OnProgress = None, *, deadline: Deadline | float | None = None
) -> PushedImage:
    """The sandbox's base image in the lab's registry, which is started; made and pushed if it is
    not there. It stands in for Red Hat's rhel-bootc. Raises MediaError or ServeError.

    >>> from rfe_helpers import imagemode
    >>> imagemode.push_base(lab).digest == image.digest
    True
    """
    images = registry.start(lab)
    limit = Deadline.of(deadline, _BUILD_SECONDS)
    archive = build.base_image(lab, on_progress, deadline=limit)
    record = lab.path("registry", "base.json")
    if not record.exists() or json.loads(record.read_text())["archive"] != str(archive):
        say(on_progress)("pushing the base image")
        digest = images.push(archive, BASE, limit, compression=COMPRESSION)
        files.write_json(record, {"archive": str(archive), "digest": digest})
    return pushed(images, BASE)


def base_by_digest(lab: Lab) -> str:
    """The base image as it was pushed, whatever its name has become meanwhile. Raises
    StepMissingError before `push_base`."""
    record, images = lab.path("registry", "base.json"), registry.find(lab)
    if images is None or not record.exists():
        raise StepMissingError(
            "this lab has no base image", remedy="imagemode.push_base(lab) makes one"
        )
    digest = json.loads(record.read_text())["digest"]
    return f"{images.address}/{BASE.partition(':')[0]}@{digest}"


def build_image(
    lab: Lab,
    context: Path,
    tag: str,
    on_progress: OnProgress = None,
    *,
    repository: str = REPOSITORY,
    deadline: Deadline | float | None = None,
) -> PushedImage:
    """Build the Containerfile in the directory `context` with podman and push it to the lab's
    registry as REPOSITORY:TAG. Raises PodmanError with the end of the output, or ServeError.

    >>> from pathlib import Path
    >>> from rfe_helpers import imagemode
    >>> text = imagemode.write_layer(image, lab.profile, "jq", Path("os"))
    >>> system = imagemode.build_image(lab, Path("os"), "1")  # doctest: +SKIP
    >>> len(system.new_layers(image))  # doctest: +SKIP
    1
    """
    images = registry.start(lab)
    limit = Deadline.of(deadline, _BUILD_SECONDS)
    log = lab.log("podman-build")
    podman = Podman.of(lab)
    name = f"{images.address}/{repository}:{tag}"
    podman.build_image(context, name, limit, log, on_line=on_progress)
    say(on_progress)(f"pushing {repository}:{tag}")
    podman.push_image(name, limit, log, compression=COMPRESSION)
    return pushed(images, f"{repository}:{tag}")


def pushed(images: Registry, name: str) -> PushedImage:
    """An image of the registry. Raises ServeError if it has none of that name.

    >>> from rfe_helpers import imagemode
    >>> imagemode.pushed(registry, image.name) == image
    True
    """
    manifest = images.manifest(name)
    layers = tuple((str(each["digest"]), int(each["size"])) for each in manifest["layers"])
    return PushedImage(images.address, name, images.digest(name), layers)


def lint(lab: Lab, image: PushedImage, *, change: str = "", seconds: float = 300) -> str:
    """What `bootc container lint` says of an image that was built here; `change` is a shell command
    that changes the container before, to see what lint says then. Raises PodmanError if no
    container starts.

    >>> from rfe_helpers import imagemode
    >>> print(imagemode.lint(lab, image))  # doctest: +SKIP
    Checks passed: 13
    """
    podman = Podman.of(lab)
    script = "{ " + (change or ":") + "; bootc container lint || true; } 2>&1"
    command = ["sh", "-c", script]
    return podman.run_once(image.reference, command, Deadline(seconds), lab.log("podman-lint"))


def write_layer(below: PushedImage, profile: Profile, package: str, directory: Path) -> str:
    r"""Write a Containerfile that adds a package to an image; returns its text.

    >>> from pathlib import Path
    >>> from rfe_helpers import imagemode
    >>> print(imagemode.write_layer(image, lab.profile, "jq", Path("os")))
    # The blueprint layer 0.0.0 in image mode
    FROM 127.0.0.1:.../edge-base:13
    ...
    """
    blueprint = Blueprint("layer", packages=(PackageSpec(package),))
    translation = translate(blueprint, profile, base=below.reference)
    write(translation, directory, replace=True)
    return translation.containerfile
