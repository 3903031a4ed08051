"""What `bootc status --format=json` says of a machine: the document BootcHost.

Fields and names are those of bootc (crates/lib/src/spec.rs, 1.1.6 of 2025-03 to 1.16 of 2026-08);
what later versions have added is left out, or None where a version does not have it.
"""

from __future__ import annotations

import msgspec

from rfe_helpers.errors import NodeError
from rfe_helpers.machine.node import Node


class BootcReference(msgspec.Struct, frozen=True, rename="camel"):
    """An image by name; `transport` is registry, oci, …; `signature` is None for an image whose
    signature is not required."""

    image: str
    transport: str
    signature: str | dict[str, str] | None = None


class BootcImage(msgspec.Struct, frozen=True, rename="camel"):
    """An image as it is deployed, or could be."""

    image: BootcReference
    image_digest: str
    version: str | None = None
    timestamp: str | None = None
    architecture: str | None = None


class BootcOstree(msgspec.Struct, frozen=True, rename="camel"):
    """The commit of a deployment."""

    checksum: str
    deploy_serial: int
    stateroot: str | None = None


class BootcEntry(msgspec.Struct, frozen=True, rename="camel"):
    """A deployment; `image` is None for an edge commit, or where `incompatible`: rpm-ostree has
    layered packages on it. `cached_update` is what `bootc upgrade --check` has seen."""

    image: BootcImage | None
    cached_update: BootcImage | None
    incompatible: bool
    pinned: bool
    ostree: BootcOstree | None = None
    store: str | None = None


class BootcSlots(msgspec.Struct, frozen=True, rename="camel"):
    """The deployments by their part: what boots next, what runs, what the way back leads to."""

    staged: BootcEntry | None
    booted: BootcEntry | None
    rollback: BootcEntry | None
    rollback_queued: bool
    type: str | None


class BootcSpec(msgspec.Struct, frozen=True, rename="camel"):
    """What the machine is meant to run; `boot_order` is default or rollback."""

    image: BootcReference | None
    boot_order: str = "default"


class BootcHost(msgspec.Struct, frozen=True, rename="camel"):
    """The document. For example:

    >>> from rfe_helpers import imagemode
    >>> host = imagemode.read_host(node)
    >>> host.status.booted.image is None  # this machine runs an edge commit
    True
    """

    api_version: str
    kind: str
    spec: BootcSpec
    status: BootcSlots

    @property
    def digest(self) -> str:
        """The digest of the image that runs, "" for an edge commit."""
        booted = self.status.booted
        return booted.image.image_digest if booted and booted.image else ""


def parse_host(text: str) -> BootcHost:
    """The document from its JSON. Raises NodeError for anything else.

    >>> from rfe_helpers import imagemode
    >>> text = node.sudo("bootc status --format=json").stdout
    >>> imagemode.parse_host(text).kind
    'BootcHost'
    """
    try:
        host = msgspec.json.decode(text, type=BootcHost)
    except msgspec.MsgspecError as error:
        raise NodeError(f"`bootc status --format=json` cannot be parsed: {error}") from None
    if (host.api_version, host.kind) != ("org.containers.bootc/v1", "BootcHost"):
        raise NodeError(f"bootc speaks of {host.kind!a} {host.api_version!a}, which is not known")
    return host


def read_host(node: Node) -> BootcHost:
    """What bootc says of a machine. Raises NodeError.

    >>> from rfe_helpers import imagemode
    >>> imagemode.read_host(node).digest  # "" for an edge commit
    ''
    """
    return parse_host(node.sudo("bootc status --format=json").stdout)
