from __future__ import annotations

import zoneinfo
from dataclasses import replace
from typing import Any

import pytest

from rfe_helpers.build import blueprint as blueprints
from rfe_helpers.build.blueprint import Blueprint, PackageSpec
from rfe_helpers.build.keys import CUSTOMIZATIONS
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
            },
            {"name": "john.doe", "description": "Doe, John = IT\u2028\u0085", "home": "/home/jd/"},
            {"name": "John", "key": f'command="a \\"b\\"",no-pty,from="10.0.0.0/8" {KEY}'},
        ],
        group=[{"name": "operators", "gid": 2000}],
        sshkey=[{"user": "root", "key": KEY}],
        services={"enabled": ["ssh.service"], "disabled": ["a@b.timer"], "masked": ["x\\x2d"]},
        directories=[{"path": "/etc/edge", "mode": "0750", "user": 0, "group": "wheel"}],
        files=[
            {"path": "/etc/edge/conf d", "data": "$(reboot)\n", "mode": "0600"},
            {"path": "/root/note", "data": ""},
            {"path": "/etc/edge/fetched", "uri": "https://host.example/x"},
            {"path": "/usr/local/bin/tool", "data": "#!/bin/sh\n", "mode": "755"},
        ],
        firewall={
            "ports": ["22:tcp", "80-90:udp", "imap:tcp"],
            "services": {"enabled": ["ntp"], "disabled": ["dhcpv6-client"]},
            "zones": [{"name": "plant", "sources": ["192.0.2.0/24", "2001:db8::1"]}],
        },
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
        {"user": [{"name": "1234"}]},
        {"user": [{"name": "."}]},
        {"user": [{"name": "jo hn"}]},
        {"user": [{"name": "ü"}]},
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
        {"user": [{"name": "core", "key": f'command="x {KEY}'}]},
        {"user": [{"name": "core", "key": f'command="x"\n{KEY}'}]},
        {"user": [{"name": "core", "key": f"command=x {KEY}"}]},
        {"user": [{"name": "core", "description": "a\nb"}]},
        {"user": [{"name": "core", "home": "/proc/1/root"}]},
        {"user": [{"name": "core", "home": "/proc"}]},
        {"group": [{"name": "a", "gid": 2000}, {"name": "b", "gid": 2000}]},
        {"group": [{"name": "a b"}]},
        {"sshkey": [{"user": "../root", "key": KEY}]},
        {"sshkey": [{"user": "root", "key": KEY + "\nroot"}]},
        {"services": {"enabled": ["--now"]}},
        {"services": {"masked": ["a b"]}},
        {"services": {"masked": ["../x"]}},
        {"directories": [{"path": "/etc"}]},
        {"directories": [{"path": "/var/lib/x"}]},
        {"directories": [{"path": "/etc/x", "mode": "0999"}]},
        {"directories": [{"path": "/etc/passwd"}]},
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
        {"files": [{"path": "/etc/x", "mode": 0o600}]},
        {"files": [{"path": "/etc/x", "mode": "4755"}]},
        {"files": [{"path": "/etc/x", "mode": "u+x"}]},
        {"files": [{"path": "/etc/x", "data": "a", "uri": "https://example.com/x"}]},
        {"files": [{"path": "/etc/mtab", "data": "a"}]},
        {"files": [{"path": "/etc/x"}, {"path": "/etc/x/y"}]},
        {"files": [{"path": "/etc/x", "uri": "file:///etc/shadow"}]},
        {"files": [{"path": "/etc/x", "uri": "ftp://host.example/x"}]},
        {"firewall": {"ports": ["22"]}},
        {"firewall": {"ports": ["22/tcp"]}},
        {"firewall": {"ports": ["0:tcp"]}},
        {"firewall": {"ports": ["90-80:tcp"]}},
        {"firewall": {"ports": ["65536:tcp"]}},
        {"firewall": {"ports": ["--panic-on:tcp"]}},
        {"firewall": {"services": {"enabled": ["a b"]}}},
        {"firewall": {"zones": [{"name": "x y"}]}},
        {"firewall": {"zones": [{"sources": ["10.0.0.1"]}]}},
        {"firewall": {"zones": [{"name": "x", "sources": ["host.example"]}]}},
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


def test_an_older_time_zone_is_left_to_the_tree_where_the_machine_lacks_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    check(timezone={"timezone": "US/Eastern"})
    monkeypatch.setattr(zoneinfo, "available_timezones", lambda: {"America/New_York"})
    customizations.timezones.cache_clear()
    try:
        check(timezone={"timezone": "US/Eastern"})
        with pytest.raises(BlueprintError, match="is not a time zone"):
            check(timezone={"timezone": "../../etc/passwd"})
    finally:
        customizations.timezones.cache_clear()


def test_customizations_that_the_type_lacks_are_refused_by_name() -> None:
    with pytest.raises(BlueprintError) as failure:
        check(hostname="x", fips=True, openscap={"profile_id": "x"})
    assert failure.value.message.startswith(
        "unsupported blueprint customizations found for image type"
        ' "edge-commit": fips, openscap (allowed: directories, files, '
    )
    assert failure.value.message.endswith(
        "; openscap: Image Builder has it for images without OSTree only, and "
        "the profiles that it applies are those of RHEL"
    )


def test_a_file_and_a_directory_cannot_be_at_one_path() -> None:
    with pytest.raises(BlueprintError, match="is a directory as well"):
        check(files=[{"path": "/etc/app"}], directories=[{"path": "/etc/app"}])
    with pytest.raises(BlueprintError, match="but the parent of '/etc/app/conf"):
        check(files=[{"path": "/etc/app"}], directories=[{"path": "/etc/app/conf.d"}])


@pytest.mark.parametrize("name", sorted(set(CUSTOMIZATIONS) - set(COMMIT.customizations)))
def test_each_customization_that_is_not_done_is_refused_with_a_reason(name: str) -> None:
    value = {"filesystem": [{"mountpoint": "/var", "minsize": 2**30}], "fips": True}.get(
        name, {"x": 1}
    )
    with pytest.raises(BlueprintError) as failure:
        check(**{name: value})
    assert failure.value.message.count(name) >= 2 or name in ("installer", "installation_device")


@pytest.mark.parametrize("timeout", [-2, 3601])
def test_how_long_a_menu_may_wait(timeout: int) -> None:
    installer = image_types.find("edge-installer")
    assert installer is not None
    for value in (-1, 0, 3600):
        blueprint = Blueprint("x", customizations={"installer": {"menu-timeout": value}})
        customizations.check(blueprint, installer)
    blueprint = Blueprint("x", customizations={"installer": {"menu-timeout": timeout}})
    with pytest.raises(BlueprintError, match="a number from -1 to 3600"):
        customizations.check(blueprint, installer)


@pytest.mark.parametrize("key", ["bootloader", "payload"])
def test_what_the_installer_does_not_do_is_refused_by_name(key: str) -> None:
    installer = image_types.find("edge-installer")
    assert installer is not None
    values = {"unattended": True, key: {"x": "y"}}
    blueprint = Blueprint("x", customizations={"installer": values})
    with pytest.raises(BlueprintError, match=f"customizations.installer.{key}"):
        customizations.check(blueprint, installer)


def test_unknown_keys_are_warned_of_as_nothing_is_made_of_them() -> None:
    blueprint = blueprints.parse_json(
        {
            "name": "x",
            "colour": "red",
            "packages": [{"name": "tmux", "flavour": "mint"}],
            "customizations": {"hostnam": "x", "user": [{"name": "a", "nick": "b"}]},
        }
    )
    customizations.check(blueprint, COMMIT)
    assert sorted(customizations.warnings(blueprint, COMMIT)) == [
        "colour: unknown key, ignored",
        "customizations.hostnam: unknown key, ignored",
        "customizations.user[0].nick: unknown key, ignored",
        "packages[0].flavour: unknown key, ignored",
    ]


@pytest.mark.parametrize(
    "blueprint",
    [
        Blueprint("x", groups=("Development Tools",)),
        Blueprint("x", containers=({"source": "registry example"},)),
        Blueprint("x", enabled_modules=({"name": "nodejs", "stream": "20"},)),
    ],
    ids=["groups", "containers", "enabled_modules"],
)
def test_groups_containers_and_modules_are_refused_by_name(blueprint: Blueprint) -> None:
    with pytest.raises(
        BlueprintError, match=r"is not (supported for|the name of a task|a reference)"
    ):
        customizations.check(blueprint, COMMIT)


def test_groups_are_the_tasks_of_debian_and_a_firewall_is_a_package() -> None:
    blueprint = Blueprint("x", groups=("web-server",), customizations={"firewall": {"ports": []}})
    customizations.check(blueprint, COMMIT)
    assert customizations.group_packages(blueprint) == ("task-web-server",)
    assert customizations.packages(blueprint) == ("firewalld",)
    assert customizations.packages(Blueprint("x")) == ()


def test_a_type_that_deploys_a_commit_takes_no_containers_and_ignores_packages() -> None:
    kind = replace(COMMIT, name="edge-installer", packages=False)
    with pytest.raises(BlueprintError, match='"containers" is not supported'):
        customizations.check(Blueprint("x", containers=({"source": "r.example/app"},)), kind)
    blueprint = Blueprint("x", packages=(PackageSpec("tmux"),))
    customizations.check(blueprint, kind)
    (warning,) = customizations.warnings(blueprint, kind)
    assert "packages: not supported" in warning
    assert customizations.warnings(blueprint, COMMIT) == []


def test_empty_customizations_are_ignored() -> None:
    check(firewall={}, fips=False, openscap={}, filesystem=[])


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
