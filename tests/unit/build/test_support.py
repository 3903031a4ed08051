"""The table of customizations: its page, and what the sandbox really does."""

from pathlib import Path
from typing import Any

import pytest

from rfe_helpers.build import support
from rfe_helpers.build.blueprint import CUSTOMIZATIONS, Blueprint, PackageSpec
from rfe_helpers.build.linter import lint
from rfe_helpers.errors import BlueprintError, BuilderError
from rfe_helpers.lab import profile
from rfe_helpers.sandbox.build import customizations, image_types, offline
from rfe_helpers.sandbox.build.image_types import ImageType

PAGE = Path(__file__).parents[3] / "docs/customizations.md"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGwT3VrRAhjqVtpcYkPjC4i3cRdmLlvhN1vVXvMjYIKA me@home"
# A value for each part that the sandbox looks at; others get something that is not empty.
VALUES: dict[str, Any] = {
    "cacerts": {"pem_certs": ["x"]},
    "directories": [{"path": "/etc/app"}],
    "disk": {"partitions": [{"mountpoint": "/var", "minsize": 2**30}]},
    "files": [{"path": "/etc/app"}],
    "filesystem": [{"mountpoint": "/", "minsize": 2**30}],
    "fips": True,
    "firewall": {"ports": ["22:tcp"]},
    "group": [{"name": "ops"}],
    "hostname": "edge",
    "ignition": {"firstboot": {"url": "http://127.0.0.1/x.ign"}},
    "installation_device": "/dev/vda",
    "installer.kickstart": {"contents": "poweroff\n"},
    "installer.menu-timeout": 30,
    "installer.modules": {"enable": ["org.x"]},
    "installer.sudo-nopasswd": ["core"],
    "installer.unattended": True,
    "kernel.append": "quiet",
    "kernel.name": "linux-image-amd64",
    "locale": {"keyboard": "us"},
    "partitioning_mode": "raw",
    "services": {"enabled": ["ssh"]},
    "sshkey": [{"user": "root", "key": KEY}],
    "timezone": {"timezone": "UTC"},
    "user": [{"name": "core"}],
}
TOP: dict[str, Any] = {
    "packages": (PackageSpec("tmux"),),
    "modules": (PackageSpec("tmux"),),
    "groups": ("web-server",),
    "containers": ({"source": "registry.example/x"},),
    "enabled_modules": ({"name": "nodejs", "stream": "20"},),
}
TYPES = {
    "commit": "edge-commit",
    "container": "edge-container",
    "installer": "edge-installer",
    "raw": "edge-raw-image",
    "simplified": "edge-simplified-installer",
    "guest": "guest-image",
}


def requesting(part: str, **required: str) -> Blueprint:
    if part in TOP:
        return Blueprint("x", customizations=required, **{part: TOP[part]})
    name, _, key = part.partition(".")
    value = VALUES.get(part, {"x": "y"})
    return Blueprint("x", customizations={**required, name: {key: value} if key else value})


def outcome(blueprint: Blueprint, kind: ImageType) -> str:
    try:
        customizations.check(blueprint, kind)
        if kind.name == "edge-installer":
            offline.check(blueprint.customizations)
    except (BlueprintError, BuilderError):
        return support.REFUSES
    warnings = customizations.warnings(blueprint, kind)
    return support.WARNS if any("ignored" in text for text in warnings) else support.TAKES


@pytest.mark.parametrize("purpose", TYPES)
def test_the_sandbox_does_what_the_table_says(purpose: str) -> None:
    kind = image_types.find(TYPES[purpose])
    assert kind is not None
    required = {"installation_device": "/dev/vda"} if purpose == "simplified" else {}
    done = {part: outcome(requesting(part, **required), kind) for part in support.parts()}
    assert done == {part: support.verdict("sandbox", purpose, part) for part in support.parts()}


def test_all_that_a_blueprint_may_hold_is_in_the_table() -> None:
    names = {part.partition(".")[0] for part in support.parts()}
    assert names == {*CUSTOMIZATIONS, *TOP}
    listed = {
        part
        for name in support.facts()["releases"]
        for table in support.facts()[name].values()
        for outcome in (support.TAKES, support.WARNS, support.IGNORES, support.REFUSES)
        for part in table.get(outcome, ())
    }
    assert listed <= {*support.parts(), *names}


def test_the_page_is_written_from_the_data() -> None:
    assert PAGE.read_text() == support.document(), (
        "run: python -m rfe_helpers.build.support > docs/customizations.md"
    )


@pytest.mark.parametrize(
    ("name", "image_type", "part", "message"),
    [
        ("rhel-9.4", "edge-raw-image", "services", "the compose is refused"),
        ("centos-stream-9", "edge-raw-image", "services", ""),
        ("centos-stream-9", "edge-raw-image", "hostname", "left out, with a warning"),
        ("rhel-8.10", "edge-raw-image", "kernel.append", "the compose is refused"),
        ("rhel-9.4", "edge-raw-image", "kernel.append", ""),
        ("rhel-9.4", "edge-commit", "firstboot", "left out without a warning"),
        ("rhel-9.4", "edge-installer", "sshkey", "the compose is refused"),
        ("sandbox", "edge-commit", "fips", "the compose is refused"),
    ],
)
def test_the_lint_says_what_the_release_makes_of_it(
    name: str, image_type: str, part: str, message: str
) -> None:
    findings = lint(requesting(part), profile.load(name), image_type)
    messages = [each.message for each in findings if each.where == f"customizations.{part}"]
    assert any(message in each for each in messages) if message else messages == []
