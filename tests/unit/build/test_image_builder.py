"""Requests as commands of image-builder, where a release has it."""

import json

import pytest

from rfe_helpers.build.image_builder import image_builder
from rfe_helpers.core.journal import ApiRequest

BODY = {"blueprint_name": "edge", "compose_type": "edge-container"}


def request(method: str, path: str, body: object = "") -> ApiRequest:
    text = body if isinstance(body, str) else json.dumps(body)
    return ApiRequest("/run/weldr/api.socket", method, f"/api/v1/{path}", text)


@pytest.mark.parametrize(
    ("asked", "line"),
    [
        (request("GET", "compose/types?distro=rhel-9.7"), "list --filter distro:rhel-9.7"),
        (
            request("POST", "compose", BODY),
            "build --distro rhel-9.7 --blueprint edge.toml edge-container",
        ),
        (
            request("POST", "compose", {**BODY, "ostree": {"ref": "a/b", "url": "http://x/repo/"}}),
            "build --distro rhel-9.7 --blueprint edge.toml --ostree-ref a/b "
            "--ostree-url http://x/repo/ edge-container",
        ),
        (
            request("POST", "compose", {**BODY, "blueprint_name": "a b; c", "ostree": None}),
            "build --distro rhel-9.7 --blueprint 'a b; c.toml' edge-container",
        ),
    ],
)
def test_composes_and_types_are_commands_of_image_builder(asked: ApiRequest, line: str) -> None:
    assert image_builder(asked, "rhel-9.7").removeprefix("sudo ") == f"image-builder {line}"


@pytest.mark.parametrize(
    "asked",
    [
        request("GET", "blueprints/list"),
        request("GET", "compose/queue"),
        request("POST", "compose", '{"blueprint_name": "ed…'),
        request("POST", "compose", {"compose_type": "qcow2"}),
    ],
)
def test_what_is_about_the_service_has_no_command(asked: ApiRequest) -> None:
    assert image_builder(asked, "rhel-9.7") == ""
