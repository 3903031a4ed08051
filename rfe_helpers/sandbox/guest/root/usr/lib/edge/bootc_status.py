"""`bootc status`: the document BootcHost, and what people read of it.

The fields and their order are those of bootc 1.1.6 (lib/src/spec.rs), which RHEL 10.0 has.
"""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gi.repository import GLib

from .failure import Failure
from .image_description import Image, parse_image
from .image_reference import ImageReference
from .system import CONFIG, MANIFEST, MANIFEST_DIGEST, System

API_VERSION = "org.containers.bootc/v1"
# Detached metadata of the booted commit: what `upgrade --check` has seen.
CACHED_DIGEST, CACHED_MANIFEST, CACHED_CONFIG = (
    f"ostree-ext.cached.{name}" for name in ("manifest-digest", "manifest", "config")
)
# Groups in the origin of a deployment to which rpm-ostree has added something.
_LAYERING = ("rpmostree", "packages", "overrides", "modules")
Table = dict[str, Any]


def host() -> Table:
    """The document of the running system; everything is None where none was booted from OSTree."""
    staged = booted = rollback = None
    queued = False
    if Path("/run/ostree-booted").exists():
        system = System()
        slots = Slots(system)
        queued = slots.rollback_queued
        staged, booted, rollback = (
            entry(system, deployment) for deployment in (slots.staged, slots.booted, slots.rollback)
        )
    image = next((s["image"] for s in (staged, booted) if s and s["image"]), None)
    return {
        "apiVersion": API_VERSION,
        "kind": "BootcHost",
        "metadata": {"name": "host"},
        "spec": {
            "image": image and image["image"],
            "bootOrder": "rollback" if queued else "default",
        },
        "status": {
            "staged": staged,
            "booted": booted,
            "rollback": rollback,
            "rollbackQueued": queued,
            "type": "bootcHost" if booted and booted["image"] else None,
        },
    }


class Slots:
    """The deployments by their part: the staged one, the booted one, and the one to go back to."""

    def __init__(self, system: System) -> None:
        self.booted = system.booted
        name = self.booted.get_osname() if self.booted is not None else ""
        others = [
            deployment
            for deployment in system.deployments
            if deployment.get_osname() == name and not deployment.equal(self.booted)
        ]
        self.staged = next((each for each in others if each.is_staged()), None)
        remaining = [each for each in others if not each.is_staged()]
        self.rollback = remaining[0] if remaining else None
        self.rollback_queued = self.rollback is not None and system.index(
            self.rollback
        ) < system.index(self.booted)


def entry(system: System, deployment: Any) -> Table | None:
    """A deployment as the document has it."""
    if deployment is None:
        return None
    checksum = deployment.get_csum()
    incompatible = is_layered(deployment)
    reference = None if incompatible else system.image(deployment)
    return {
        "image": reference and image_status(system, checksum, reference),
        "cachedUpdate": reference and cached_update(system, checksum, reference),
        "incompatible": incompatible,
        "pinned": deployment.is_pinned(),
        "store": "ostreeContainer" if reference else None,
        "ostree": {"checksum": checksum, "deploySerial": deployment.get_deployserial()},
    }


def is_layered(deployment: Any) -> bool:
    """Whether rpm-ostree has changed a deployment in a way that bootc cannot carry on."""
    origin = deployment.get_origin()
    return origin is not None and bool({*origin.get_groups()[0]} & {*_LAYERING})


def image_status(system: System, checksum: str, reference: ImageReference) -> Table:
    texts = (system.text(checksum, key) for key in (MANIFEST_DIGEST, MANIFEST, CONFIG))
    return _image(reference, *texts)


def cached_update(system: System, checksum: str, reference: ImageReference) -> Table | None:
    values = _detached(system, checksum)
    digest = values.get(CACHED_DIGEST)
    if not digest or digest == system.text(checksum, MANIFEST_DIGEST):
        return None
    return _image(reference, digest, values.get(CACHED_MANIFEST, ""), values.get(CACHED_CONFIG, ""))


def remember_update(system: System, checksum: str, image: Image) -> None:
    """Keep what `upgrade --check` has seen with the booted commit, beside its signatures."""
    metadata = GLib.VariantDict.new(system.repo.read_commit_detached_metadata(checksum)[1])
    for key, text in (
        (CACHED_DIGEST, image.digest),
        (CACHED_MANIFEST, image.manifest),
        (CACHED_CONFIG, image.config),
    ):
        metadata.insert_value(key, GLib.Variant("s", text))
    system.repo.write_commit_detached_metadata(checksum, metadata.end())


def _detached(system: System, checksum: str) -> Table:
    metadata = system.repo.read_commit_detached_metadata(checksum)[1]
    return metadata.unpack() if metadata is not None else {}


def _image(reference: ImageReference, digest: str, manifest: str, config: str) -> Table:
    place: Table = {"image": reference.name, "transport": reference.transport}
    if reference.signed:
        place["signature"] = "containerPolicy"
    try:
        image = parse_image(digest, manifest, config)
        version, created = image.version or None, image.created or None
    except Failure:  # written by another program
        version = created = None
    return {"image": place, "version": version, "timestamp": created, "imageDigest": digest}


# for people ---------------------------------------------------------------------------------------


def as_text(document: Table) -> str:
    """What a terminal shows."""
    status = document["status"]
    if status["booted"] is None:
        return "System is not deployed via bootc."
    order = [("staged", " ", "Staged"), ("booted", "●", "Booted"), ("rollback", " ", "Rollback")]
    if status["rollbackQueued"]:
        order = [order[0], order[2], order[1]]
    blocks = [
        "\n".join(_block(status[key], mark, title))
        for key, mark, title in order
        if status[key] is not None
    ]
    return "\n\n".join(blocks)


def _block(slot: Table, mark: str, title: str) -> Iterator[str]:
    image = slot["image"]
    if image is None:
        first, rows = f"{mark} {title} ostree", [("Commit", slot["ostree"]["checksum"])]
        width = len(first.encode())
    else:
        label = f"{mark} {title} image"
        place = image["image"]
        name = place["image"]
        prefix = "" if place["transport"] == "registry" else f"{place['transport']}:"
        first, width = f"{label}: {prefix}{name}", len(label.encode())
        rows = [("Digest", image["imageDigest"]), *_version(image)]
    if slot["incompatible"]:
        rows.append(("Incompatible", "rpm-ostree has layered packages"))
    if slot["pinned"]:
        rows.append(("Pinned", "yes"))
    if update := slot["cachedUpdate"]:
        rows += [(f"Update{key}", value) for key, value in _version(update)]
        rows.append(("UpdateDigest", update["imageDigest"]))
    yield first
    yield from (f"{key:>{width}}: {value}" for key, value in rows)


def _version(image: Table) -> list[tuple[str, str]]:
    stamp = image["timestamp"]
    moment = datetime.fromisoformat(stamp).astimezone(UTC) if stamp else None
    time = f"{moment:%Y-%m-%dT%H:%M:%SZ}" if moment else ""
    if image["version"]:
        return [("Version", f"{image['version']} ({time})" if time else image["version"])]
    return [("Timestamp", time)] if time else []


def as_yaml(value: Any, indent: int = 0) -> Iterator[str]:
    """The lines of a document as YAML, which a pipe gets. Texts are quoted as JSON has them, which
    is YAML, too."""
    pad = "  " * indent
    for key, item in value.items():
        if isinstance(item, dict):
            yield f"{pad}{key}:"
            yield from as_yaml(item, indent + 1)
        else:
            yield f"{pad}{key}: {json.dumps(item, ensure_ascii=False)}"
