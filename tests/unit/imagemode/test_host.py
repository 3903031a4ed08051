"""The document of `bootc status`, of several versions; the shapes are those of bootc's own fixtures
(lib/src/fixtures), with other names."""

import json
from typing import Any

import pytest

from rfe_helpers.errors import NodeError
from rfe_helpers.imagemode import parse_host

IMAGE = {
    "image": {"image": "registry.example/edge/os:1", "transport": "registry"},
    "version": "13.1",
    "timestamp": "2026-11-27T00:31:18.488971757Z",
    "imageDigest": "sha256:" + "0" * 64,
}
ENTRY = {
    "image": IMAGE,
    "cachedUpdate": None,
    "incompatible": False,
    "pinned": False,
    "store": "ostreeContainer",
    "ostree": {"checksum": "1" * 64, "deploySerial": 0},
}
COMMIT = {**ENTRY, "image": None, "store": None}


def document(**status: Any) -> str:
    slots = {
        "staged": None,
        "booted": None,
        "rollback": None,
        "rollbackQueued": False,
        "type": None,
    }
    return json.dumps(
        {
            "apiVersion": "org.containers.bootc/v1",
            "kind": "BootcHost",
            "metadata": {"name": "host"},
            "spec": {"image": IMAGE["image"], "bootOrder": "default"},
            "status": {**slots, **status},
        }
    )


def test_an_image_that_has_replaced_a_commit() -> None:
    host = parse_host(document(booted=ENTRY, rollback=COMMIT, type="bootcHost"))
    assert host.digest == IMAGE["imageDigest"]
    assert host.status.rollback is not None
    assert host.status.rollback.image is None
    assert host.status.rollback.ostree is not None
    assert host.status.rollback.ostree.deploy_serial == 0


def test_a_commit_and_a_system_without_ostree() -> None:
    assert parse_host(document(booted=COMMIT)).digest == ""
    assert parse_host(document()).digest == ""


def test_what_later_versions_add_is_no_hindrance() -> None:
    image = {**IMAGE, "architecture": "amd64"}
    image["image"] = {**IMAGE["image"], "signature": {"ostreeRemote": "edge"}}  # type: ignore[dict-item]
    ostree = {"checksum": "1" * 64, "deploySerial": 0, "stateroot": "default"}
    entry = {
        **ENTRY,
        "image": image,
        "softRebootCapable": True,
        "ostree": ostree,
        "composefs": None,
    }
    host = parse_host(document(booted=entry, otherDeployments=[ENTRY], usrOverlay=None))
    assert host.status.booted is not None
    assert host.status.booted.image is not None
    assert host.status.booted.image.architecture == "amd64"
    assert host.status.booted.image.image.signature == {"ostreeRemote": "edge"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot be parsed"),
        ("{}", "missing required field"),
        (document(booted={}), "booted"),
        (document().replace("/v1", "/v9"), "org.containers.bootc/v9"),
    ],
)
def test_anything_else_is_an_error(text: str, message: str) -> None:
    with pytest.raises(NodeError, match=message):
        parse_host(text)
