from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from rfe_helpers.build.blueprint import Blueprint, PackageSpec
from rfe_helpers.errors import BlueprintError
from rfe_helpers.sandbox.build import customizations, image_types

COMMIT = image_types.IMAGE_TYPES[0]
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGwT3VrRAhjqVtpcYkPjC4i3cRdmLlvhN1vVXvMjYIKA me@home"
HASH = "$6$aL2sQQ2D$IzsJy1OAzNenC0S.nLi4TEpnAGkmO6E3XRiSWSlZ6qs7"


def check(**values: Any) -> None:
    customizations.check(Blueprint("x", customizations=values), COMMIT)


def test_everything_that_is_supported_passes() -> None:
    check(
        hostname="edge-1.example.com",
        user=[
            {
                "name": "core",
                "description": "The owner",
                "password": HASH,
                "key": KEY,
                "home": "/home/core",
                "shell": "/bin/bash",
                "groups": ["wheel"],
                "uid": 1001,
                "gid": 1001,
                "expiredate": 20000,
                "force_password_reset": True,
            }
        ],
        group=[{"name": "operators", "gid": 2000}],
        sshkey=[{"user": "root", "key": KEY}],
        services={"enabled": ["ssh.service"], "disabled": ["a@b.timer"], "masked": ["x\\x2d"]},
        directories=[{"path": "/etc/edge", "mode": "0750", "user": 0, "group": "wheel"}],
        files=[
            {"path": "/etc/edge/conf d", "data": "$(reboot)\n", "mode": 0o600},
            {"path": "/root/note", "data": ""},
            {"path": "/usr/local/bin/tool", "data": "#!/bin/sh\n", "mode": "755"},
        ],
        timezone={"timezone": "Europe/Berlin", "ntpservers": ["pool.example", "::1", "10.0.0.1"]},
        locale={"languages": ["en_US.UTF-8", "C.UTF-8", "de_DE@euro"], "keyboard": "us"},
        kernel={"name": "linux-image-amd64"},
    )


@pytest.mark.parametrize(
    "values",
    [
        {"hostname": "edge 1"},
        {"hostname": "-edge"},
        {"hostname": "edge\n"},
        {"hostname": "a" * 65},
        {"hostname": "$(reboot)"},
        {"user": [{"name": "Core"}]},
        {"user": [{"name": "-core"}]},
        {"user": [{"name": "core:0"}]},
        {"user": [{}]},
        {"user": [{"name": "core"}, {"name": "core"}]},
        {"user": [{"name": "core", "password": "$6$x:y\n"}]},
        {"user": [{"name": "core", "description": "a:b"}]},
        {"user": [{"name": "core", "home": "/home/../etc"}]},
        {"user": [{"name": "core", "home": "home"}]},
        {"user": [{"name": "core", "shell": "/bin/sh -c x"}]},
        {"user": [{"name": "core", "groups": ["wheel,root"]}]},
        {"user": [{"name": "core", "uid": 0}]},
        {"user": [{"name": "core", "gid": 2**32}]},
        {"user": [{"name": "core", "key": "ssh-ed25519 AAAA"}]},
        {"user": [{"name": "core", "key": f'command="x" {KEY}'}]},
        {"group": [{"name": "a b"}]},
        {"sshkey": [{"user": "../root", "key": KEY}]},
        {"sshkey": [{"user": "root", "key": KEY + "\nroot"}]},
        {"services": {"enabled": ["--now"]}},
        {"services": {"masked": ["a b"]}},
        {"services": {"masked": ["../x"]}},
        {"directories": [{"path": "/etc"}]},
        {"directories": [{"path": "/var/lib/x"}]},
        {"directories": [{"path": "/etc/x", "mode": "0999"}]},
        {"files": [{"path": "/etc/../usr/x"}]},
        {"files": [{"path": "/etc//x"}]},
        {"files": [{"path": "//etc/x"}]},
        {"files": [{"path": "/etc/x/"}]},
        {"files": [{"path": "/etc/x\n"}]},
        {"files": [{"path": "/etc/" + "ü" * 128}]},
        {"files": [{"path": "etc/x"}]},
        {"files": [{"data": "x"}]},
        {"files": [{"path": "/etc/passwd"}]},
        {"files": [{"path": "/etc/shadow"}]},
        {"files": [{"path": "/usr/bin/tool"}]},
        {"files": [{"path": "/etc/x"}, {"path": "/etc/x"}]},
        {"files": [{"path": "/etc/x", "user": "root:root"}]},
        {"files": [{"path": "/etc/x", "group": -1}]},
        {"files": [{"path": "/etc/x", "mode": 0o10000}]},
        {"files": [{"path": "/etc/x", "uri": "file:///etc/shadow"}]},
        {"timezone": {"timezone": "../../etc/passwd"}},
        {"timezone": {"timezone": "Europe/Nowhere"}},
        {"timezone": {"ntpservers": ["a\nb"]}},
        {"timezone": {"ntpservers": ["fe80::1%eth0"]}},
        {"locale": {"languages": ["en_US; reboot"]}},
        {"locale": {"keyboard": "us/../x"}},
        {"kernel": {"name": "linux-image-rpi"}},
        {"kernel": {"append": "quiet"}},
    ],
    ids=str,
)
def test_hostile_and_malformed_values_are_refused(values: dict[str, Any]) -> None:
    (name,) = values
    with pytest.raises(BlueprintError) as failure:
        check(**values)
    assert name in failure.value.message
    assert "\n" not in failure.value.message


def test_customizations_that_the_type_lacks_are_refused_by_name() -> None:
    with pytest.raises(BlueprintError) as failure:
        check(hostname="x", firewall={"ports": ["22:tcp"]}, openscap={"profile_id": "x"})
    assert failure.value.message.startswith(
        "unsupported blueprint customizations found for image type"
        ' "edge-commit": firewall, openscap (allowed: directories, files, '
    )


@pytest.mark.parametrize(
    "blueprint",
    [
        Blueprint("x", groups=("tools",)),
        Blueprint("x", containers=({"source": "registry.example/x"},)),
        Blueprint("x", enabled_modules=({"name": "nodejs", "stream": "20"},)),
    ],
    ids=["groups", "containers", "enabled_modules"],
)
def test_groups_containers_and_modules_are_refused_by_name(blueprint: Blueprint) -> None:
    with pytest.raises(BlueprintError, match="is not supported for image type"):
        customizations.check(blueprint, COMMIT)


def test_a_type_that_deploys_a_commit_takes_no_packages() -> None:
    kind = replace(COMMIT, name="edge-installer", packages=False)
    with pytest.raises(BlueprintError, match='"packages" is not supported'):
        customizations.check(Blueprint("x", packages=(PackageSpec("tmux"),)), kind)


def test_empty_customizations_are_ignored() -> None:
    check(firewall={}, fips=False, openscap=None, filesystem=[])


@pytest.mark.parametrize(
    ("values", "package"),
    [
        ({}, "linux-image-cloud-amd64"),
        ({"kernel": {"name": "kernel"}}, "linux-image-cloud-amd64"),
        ({"kernel": {"name": "linux-image-rt-amd64"}}, "linux-image-rt-amd64"),
    ],
)
def test_the_kernel_package(values: dict[str, Any], package: str) -> None:
    assert customizations.kernel(Blueprint("x", customizations=values)) == package


def test_image_types_are_found_by_name_and_alias() -> None:
    container = image_types.find("rhel-edge-container")
    assert container is not None
    assert container.name == "edge-container"
    assert image_types.find("edge-ami") is None
