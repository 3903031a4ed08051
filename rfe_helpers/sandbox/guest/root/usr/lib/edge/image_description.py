"""Container images as their manifest and configuration describe them, checked once.

Both documents come from elsewhere, and what is in them gets into commits, boot menus and terminals.
"""

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from .failure import Failure

# The commit of an image holds both documents, each as an argument of `ostree commit`.
LARGEST = 100 << 10
MOST_LAYERS = 200
_LARGEST_LAYER = 1 << 50
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_LONGEST_LABEL = 200
VERSION, CREATED = "org.opencontainers.image.version", "org.opencontainers.image.created"
BOOTABLE = ("containers.bootc", "ostree.bootable")
_SHOWN = (VERSION, "version", CREATED, *BOOTABLE)


@dataclass(frozen=True)
class Layer:
    """A layer as the manifest describes it: the digest and the size of what is transferred."""

    digest: str
    size: int


@dataclass(frozen=True)
class Image:
    """An image: the `digest` that the registry knows it by, its manifest and configuration as
    texts, and what they say. `version` and `created` (RFC 3339) are "" if they do not say it."""

    digest: str
    manifest: str
    config: str
    layers: tuple[Layer, ...]
    labels: dict[str, str]
    architecture: str
    version: str
    created: str

    @property
    def time(self) -> datetime | None:
        return _moment(self.created)


def parse_image(digest: str, manifest: str, config: str) -> Image:
    """An image from its two documents. Raises Failure with what is wrong in them."""
    layers = parse_layers(manifest)
    document = _document(config, "configuration")
    labels = _labels(document)
    created = labels.get(CREATED) or document.get("created") or ""
    return Image(
        digest=digest,
        manifest=manifest,
        config=config,
        layers=tuple(layers),
        labels=labels,
        architecture=str(document.get("architecture", ""))[:40],
        version=labels.get(VERSION) or labels.get("version", ""),
        created=created if isinstance(created, str) and _moment(created) else "",
    )


def parse_layers(manifest: str) -> list[Layer]:
    """The layers of a manifest; [] for an empty text. Raises Failure."""
    if not manifest:
        return []
    entries = _document(manifest, "manifest").get("layers")
    if not isinstance(entries, list) or not 0 < len(entries) <= MOST_LAYERS:
        raise Failure(f"the manifest of the image has not 1 to {MOST_LAYERS} layers")
    layers = []
    for entry in entries:
        fields = entry if isinstance(entry, dict) else {}
        digest, size = fields.get("digest"), fields.get("size")
        if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
            raise Failure("the manifest of the image has a layer without a sha256 digest")
        if type(size) is not int or not 0 <= size <= _LARGEST_LAYER:
            raise Failure(f"the manifest of the image has a layer of an impossible size: {digest}")
        layers.append(Layer(digest, size))
    return layers


def _document(text: str, what: str) -> dict[str, Any]:
    if len(text.encode(errors="replace")) > LARGEST:
        raise Failure(f"the {what} of the image has more than {LARGEST} bytes")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Failure(f"the {what} of the image cannot be read: {error}") from None
    if not isinstance(document, dict):
        raise Failure(f"the {what} of the image is not an object of JSON")
    return document


def _labels(document: dict[str, Any]) -> dict[str, str]:
    container = document.get("config") or {}
    labels = container.get("Labels") or {} if isinstance(container, dict) else None
    if not isinstance(labels, dict) or not all(isinstance(v, str) for v in labels.values()):
        raise Failure("the labels of the image are not texts")
    for name in _SHOWN:
        value = labels.get(name, "")
        if not value.isprintable() or len(value) > _LONGEST_LABEL:
            raise Failure(f"the label {name} of the image is not a line of text")
    return labels


def _moment(text: str) -> datetime | None:
    """A time with its zone, in UTC; None for anything else."""
    try:
        moment = datetime.fromisoformat(text)
        return moment.astimezone(UTC) if moment.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None
