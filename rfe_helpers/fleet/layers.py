"""What an update by container layers costs the registry, measured with a real client.

A device in image mode (bootc) asks a registry for the manifest of an image, which lists its layers,
and fetches the layers that it does not have. A layer is a compressed tar: if one file in it
changes, it is another layer, and is fetched whole.

The client here is `skopeo copy` into an OCI layout: bootc fetches with the same library, through
skopeo. Requests and bytes are counted by a link between the two (rfe_helpers.core.link). New layers
are stored as ostree commits, one each, as bootc stores them.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rfe_helpers import serve
from rfe_helpers.commit.ostree import Repo
from rfe_helpers.core import run
from rfe_helpers.core.link import Link
from rfe_helpers.core.network import LOOPBACK
from rfe_helpers.core.wait import Deadline
from rfe_helpers.errors import CommandFailedError, InputError, ServeError
from rfe_helpers.fleet.rollout import Mirror, Pull
from rfe_helpers.fleet.timer import parse_timer
from rfe_helpers.lab.lab import Lab

# The repository of operating systems in a lab's registry; its tags that are numbers are versions.
REPOSITORY = "edge/os"
# bootc-fetch-apply-updates.timer, which bootc comes with (bootc-dev/bootc, systemd/).
BOOTC = parse_timer("OnBootSec=1h\nOnUnitInactiveSec=8h\nRandomizedDelaySec=2h")

# What skopeo 1.9 asks for beside the layers: whether there is a registry, the manifest, and the
# configuration of the image; and the bytes of one answer beside its content.
_REQUESTS, _CHECK_REQUESTS, _ANSWER_BYTES = 3, 2, 600


@dataclass(frozen=True)
class ImageLayer:
    """A layer of an image: its digest ("sha256:…"), its size in bytes, compressed, and whether a
    device with the image before has to fetch it.

    >>> from rfe_helpers.core import size
    >>> from rfe_helpers.fleet import layers
    >>> for layer in layers.RECORDED.layers:
    ...     print(size(layer.size), layer.is_new)
    153.9 MB False
    937.0 kB True
    """

    digest: str
    size: int
    is_new: bool


@dataclass(frozen=True)
class ImageUpdate:
    """An update from one image to another. `layers` are those of the new image, lowest first,
    `cost` is what fetching it costs, and `source` says in words where the figures are from.

    >>> from rfe_helpers.fleet import layers
    >>> layers.RECORDED.source, layers.RECORDED.fetched
    ('as recorded for one package in a layer of its own', 937000)
    """

    cost: Pull
    layers: tuple[ImageLayer, ...]
    source: str

    @property
    def fetched(self) -> int:
        """The bytes of the layers that a device fetches."""
        return sum(layer.size for layer in self.layers if layer.is_new)


def measure(
    registry: serve.Registry,
    image: str,
    *,
    installed: str | None = None,
    deadline: Deadline | float | None = None,
) -> Pull:
    """The cost of updating one device to `image` ("edge/os:2"), and of a check without an update.

    `installed` is the image that the device has; without it the cost is that of a first pull. The
    time is that of fetching and storing new layers, without merging them with the others into one
    file system. Raises ServeError if an image cannot be fetched.

    >>> from rfe_helpers.fleet import layers
    >>> cost = layers.measure(registry, image.name)  # doctest: +SKIP
    >>> cost.requests  # doctest: +SKIP
    4
    """
    limit = Deadline.of(deadline, 3600)
    name = f"{registry.address}/{image}"
    with tempfile.TemporaryDirectory(prefix="rfe-", dir="/var/tmp") as scratch:
        device, timed = Path(scratch, "device"), Path(scratch, "timed")
        old = contents(registry, installed, limit) if installed else {}
        if installed:
            fetch(f"{registry.address}/{installed}", device, limit)
            # skopeo replaces blobs and never changes one: links are another device.
            shutil.copytree(device, timed, copy_function=os.link)
        with Link(registry.port) as link:
            counted = f"{LOOPBACK}:{link.port}/{image}"
            fetch(counted, device, limit)
            requests, size = link.requests, link.received
            _manifest(counted, limit)
            check_requests, check_size = link.requests - requests, link.received - size
        new = [digest for digest in contents(registry, image, limit) if digest not in old]
        repo = Repo(Path(scratch, "repo")).init("bare-user")
        began = time.monotonic()
        fetch(name, timed, limit)
        store(timed, repo, new, limit)
        seconds = time.monotonic() - began
    return Pull(
        requests=requests,
        bytes=size,
        seconds=seconds,
        check_requests=check_requests,
        check_bytes=check_size,
    )


def of_lab(lab: Lab, deadline: Deadline | float | None = None) -> ImageUpdate:
    """The latest update in the lab's registry, measured between the last two versions of
    REPOSITORY; RECORDED if the registry does not run or does not have two that differ.

    >>> from rfe_helpers.fleet import layers
    >>> layers.of_lab(lab).source
    'as recorded for one package in a layer of its own'
    """
    pair = versions(lab)
    if pair is None:
        return RECORDED
    registry, old, new = pair
    limit = Deadline.of(deadline, 3600)
    installed = contents(registry, old, limit)
    layers = tuple(
        ImageLayer(digest, size, digest not in installed)
        for digest, size in contents(registry, new, limit).items()
    )
    cost = measure(registry, new, installed=old, deadline=limit)
    return ImageUpdate(cost, layers, f"as measured now, from {old} to {new}")


def versions(lab: Lab) -> tuple[serve.Registry, str, str] | None:
    """The lab's registry and the names in it of the last two versions, "edge/os:1" and
    "edge/os:2"; None if it does not run, has fewer than two, or both are the same image.

    >>> from rfe_helpers.fleet import layers
    >>> layers.versions(lab) is None  # before notebook 100
    True
    """
    registry = serve.registry.find(lab)
    if registry is None or not registry.answers:
        return None
    try:
        tags = registry.tags(REPOSITORY)
    except ServeError:
        return None
    numbers = sorted((tag for tag in tags if tag.isdecimal()), key=int)
    if len(numbers) < 2:
        return None
    old, new = (f"{REPOSITORY}:{number}" for number in numbers[-2:])
    return None if registry.digest(old) == registry.digest(new) else (registry, old, new)


def contents(
    registry: serve.Registry, image: str, deadline: Deadline | float | None = None
) -> dict[str, int]:
    """The layers of an image, lowest first: the digest of each and its size in bytes, compressed.

    Raises ServeError for an image that the registry does not have, and for a list of images for
    several processors.

    >>> from rfe_helpers.fleet import layers
    >>> layers.contents(registry, image.name)
    {'sha256:...': ...}
    """
    manifest = _manifest(f"{registry.address}/{image}", Deadline.of(deadline, 60))
    if "layers" not in manifest:
        raise ServeError(
            f"{image} is a list of images for several processors",
            remedy="push the image of one of them: `skopeo copy` without --all",
        )
    return {layer["digest"]: int(layer["size"]) for layer in manifest["layers"]}


def fetch(name: str, layout: Path, deadline: Deadline | float | None = None) -> None:
    """Fetch an image ("127.0.0.1:5000/edge/os:2") from a registry on loopback into an OCI layout;
    layers that this has are not fetched. Raises ServeError."""
    argv = ["skopeo", "copy", "--quiet", "--src-tls-verify=false"]
    _skopeo([*argv, f"docker://{name}", f"oci:{layout}:os"], name, deadline)


def store(
    layout: Path, repo: Repo, digests: Iterable[str], deadline: Deadline | float | None = None
) -> None:
    """Store layers of an OCI layout as ostree commits, each at a ref of its own. Raises
    CommandFailedError, as for a layer with device files."""
    for digest in digests:
        run.run(store_argv(layout, repo.path, digest), deadline=deadline)


def store_argv(layout: Path, repo: Path, digest: str) -> list[str]:
    """The command line that stores a layer, as bootc has it, which escapes ":" in refs."""
    blob = layout / "blobs" / digest.replace(":", "/")
    # fmt: off
    return [
        "ostree", "commit", f"--repo={repo}", f"--branch={blob_ref(digest)}", f"--tree=tar={blob}",
        "--tar-autocreate-parents", "--no-bindings", "--subject=",
    ]
    # fmt: on


def blob_ref(digest: str) -> str:
    """The ref of a layer in the repository of a device.

    >>> from rfe_helpers.fleet import layers
    >>> layers.blob_ref("sha256:0f3a")
    'ostree/container/blob/sha256_3A_0f3a'
    """
    return f"ostree/container/blob/{digest.replace(':', '_3A_')}"


def _manifest(name: str, deadline: Deadline) -> dict[str, list[dict[str, str]]]:
    """The manifest of an image, which is what a check for updates asks for."""
    argv = ["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{name}"]
    manifest: dict[str, list[dict[str, str]]] = json.loads(_skopeo(argv, name, deadline))
    return manifest


def _skopeo(argv: Sequence[str], name: str, deadline: Deadline | float | None) -> str:
    run.require("skopeo")
    try:
        return run.run(argv, deadline=deadline).stdout
    except CommandFailedError as error:
        reason = error.tail.splitlines()[-1] if error.tail else error.message
        raise ServeError(
            f"cannot fetch {name.partition('/')[2]}: {reason}",
            remedy=error.remedy or "check that the registry runs: `rfe lab show`",
        ) from None


# The model ------------------------------------------------------------------------------------


def pull(sizes: Sequence[float], *, seconds: float = 30.0) -> Pull:
    """The cost of an update that fetches layers of these sizes (bytes, compressed).

    >>> from rfe_helpers.fleet import layers
    >>> layers.pull([152e6]).bytes
    152002400.0
    """
    if any(each < 0 for each in sizes):
        raise InputError("the size of a layer cannot be negative")
    return _cost(len(sizes), sum(sizes), seconds)


def chunked(size: float, chunks: int, changed: int, *, seconds: float = 30.0) -> Pull:
    """The cost of an update of `changed` packages in a base image of `size` bytes that is split by
    package into `chunks` layers of one size, as `rpm-ostree compose container-encapsulate` does.

    The packages are in layers at random, so that this is an expected value: the more layers, the
    fewer bytes, and the more requests. Raises InputError for fewer than one layer.

    >>> from rfe_helpers.core import size
    >>> from rfe_helpers.fleet import layers
    >>> size(layers.chunked(152e6, 64, 1).bytes)
    '2.4 MB'
    """
    if chunks < 1 or changed < 0:
        raise InputError(f"an image cannot have {chunks} layers, or {changed} changed packages")
    count = chunks * (1 - (1 - 1 / chunks) ** changed)
    return _cost(count, count * size / chunks, seconds)


def busy(cost: Pull, mirror: Mirror) -> float:
    """The seconds of a mirror's time that one pull takes: by its requests or by its bytes,
    whichever is more. A fleet of a million takes a million times as long.

    >>> from rfe_helpers.fleet import Mirror, Pull, layers
    >>> layers.busy(Pull(requests=45, bytes=667_000), Mirror(requests=5000))
    0.009
    """
    return max(cost.requests / mirror.requests, cost.bytes / mirror.bytes)


def break_even(cost: Pull, mirror: Mirror | None = None) -> float:
    """The size (bytes) of a layer that costs as much as `cost`, an update of another kind: smaller
    ones are cheaper. 0 if every layer costs more.

    Compared are the bytes that a device fetches; with a `mirror`, the time of it that each takes.

    >>> from rfe_helpers.core import size
    >>> from rfe_helpers.fleet import Pull, layers
    >>> size(layers.break_even(Pull(requests=45, bytes=667_000)))
    '664.6 kB'
    """
    empty = pull([0])
    if mirror is None:
        return max(0.0, cost.bytes - empty.bytes)
    limit = busy(cost, mirror)
    if empty.requests / mirror.requests > limit:
        return 0.0
    return max(0.0, limit * mirror.bytes - empty.bytes)


def _cost(count: float, size: float, seconds: float) -> Pull:
    """The cost of fetching `count` layers with `size` bytes in all."""
    requests = _REQUESTS + count
    return Pull(
        requests=requests,
        bytes=size + requests * _ANSWER_BYTES,
        seconds=seconds,
        check_requests=_CHECK_REQUESTS,
        check_bytes=_CHECK_REQUESTS * _ANSWER_BYTES,
    )


# Recorded figures -----------------------------------------------------------------------------

# The forms of an update. A change in the base layer fetches all of it again.
OBJECTS, DELTA = "OSTree objects", "static delta"
OWN_LAYER, BASE_LAYER = "a layer of its own", "the base layer"
# Measured in one run of benchmarks/layers.py over 20 Mbit/s and 100 ms, with packages of Debian 13
# and the sandbox's tree (docs/figures.md): the small update brings tmux, the large one git and vim.
RECORDED_UPDATES: Mapping[str, Mapping[str, Pull]] = {
    "small": {
        OBJECTS: Pull(50, 1_181_487, 2.2, 5, 2_179),
        DELTA: Pull(9, 810_477, 1.5, 5, 2_179),
        OWN_LAYER: Pull(4, 939_822, 4.4, 2, 1_235),
        BASE_LAYER: Pull(4, 154_803_814, 74.8, 2, 1_078),
    },
    "large": {
        OBJECTS: Pull(4090, 45_874_319, 63.2, 5, 2_179),
        DELTA: Pull(922, 38_839_687, 27.1, 5, 2_179),
        OWN_LAYER: Pull(4, 43_797_126, 26.9, 2, 1_237),
        BASE_LAYER: Pull(4, 197_662_924, 104.5, 2, 1_078),
    },
}
_BASE = "sha256:1ccf60742bff071d7f26eedfea5a533e56a8fadbd0a8f3276f91c7349f55fb0e"
_TMUX = "sha256:4b8ba4626deefe2752597c6d34b7edccf8142decdaccc970b6f56bfa672c8bf6"
# The small update as a layer of its own; the sizes are rounded.
RECORDED = ImageUpdate(
    cost=RECORDED_UPDATES["small"][OWN_LAYER],
    layers=(
        ImageLayer(_BASE, 153_920_000, is_new=False),
        ImageLayer(_TMUX, 937_000, is_new=True),
    ),
    source="as recorded for one package in a layer of its own",
)
