"""Both forms of a device's configuration, checked by the programs that read them."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from pykickstart.parser import KickstartParser
from pykickstart.version import RHEL9, makeVersion

from rfe_helpers.build.blueprint import Blueprint, parse_toml, to_toml
from rfe_helpers.errors import InputError
from rfe_helpers.fleet import description
from rfe_helpers.fleet.description import Device
from rfe_helpers.fleet.timer import parse_timer
from rfe_helpers.install import kickstart
from rfe_helpers.lab import profile
from rfe_helpers.sandbox.build import customizations, image_types

IMAGE = "10.0.2.2:5000/edge/application:stable"
FULL = Device(image=IMAGE, registry="10.0.2.2:5000", window="Sun *-*-* 00:30:00", splay="1d")
PLAIN = Device(image=IMAGE, quadlet=False)
DEVICES = {
    "full": FULL,
    "plain unit": PLAIN,
    "no application": Device(),
    "at three": Device(image=IMAGE, on_calendar="*-*-* 03:00:00"),
    "silent": Device(image=IMAGE, notifies=False),
    **{policy: Device(policy=policy, image=IMAGE) for policy in description.POLICIES},
}
GUEST = Path(description.__file__).parents[1] / "sandbox" / "guest" / "root"
# What a message of systemd-analyze names if it is about a device's files.
OURS = ("applyupdate", "application", "50-splay", "rpm-ostreed", "podman-auto-update")
QUADLET = Path("/usr/libexec/podman/quadlet")


@pytest.fixture(params=DEVICES.values(), ids=DEVICES.keys())
def device(request: pytest.FixtureRequest) -> Device:
    described: Device = request.param
    return described


def texts(device: Device) -> dict[str, str]:
    return {file.path: file.text for file in description.files(device)}


def edge2(device: Device) -> str:
    return kickstart.render(
        profile.load("sandbox"),
        url="http://10.0.2.2:8000/repo/",
        user="core",
        ssh_key="ssh-ed25519 AAAA somebody",
        post=description.post(device),
    )


def script_of(text: str) -> str:
    handler = makeVersion(RHEL9)
    KickstartParser(handler).readKickstartFromString(text)
    (post,) = handler.scripts
    assert post.errorOnFail
    return str(post.script)


def fake(directory: Path, name: str, text: str) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / name).write_text(f"#!/bin/sh\n{text}\n")
    (directory / name).chmod(0o755)


def run_fakes(argv: list[str], fakes: Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PATH": f"{fakes}:{os.environ['PATH']}"}
    return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60)


def test_both_forms_write_the_same_files_and_enable_the_same_units(
    device: Device, tmp_path: Path
) -> None:
    """The %post script runs as the installer runs it, but below another root."""
    root, arguments = tmp_path / "root", tmp_path / "arguments"
    fake(tmp_path / "bin", "systemctl", f'echo "$@" > {arguments}')
    script = script_of(edge2(device))
    moved = re.sub(r"^(mkdir -p|cat >|chmod \d+) /etc", rf"\1 {root}/etc", script, flags=re.M)
    ran = run_fakes(["/bin/sh", "-c", moved], tmp_path / "bin")
    assert (ran.returncode, ran.stderr) == (0, "")
    written = {
        f"/{path.relative_to(root)}": (path.read_text(), f"{path.stat().st_mode & 0o7777:04o}")
        for path in root.rglob("*")
        if path.is_file()
    }
    blueprint = description.customizations(device)
    assert written == {file["path"]: (file["data"], file["mode"]) for file in blueprint["files"]}
    units = blueprint.get("services", {"enabled": []})["enabled"]
    enabled = arguments.read_text().split() if arguments.exists() else ["enable"]
    assert enabled == ["enable", *units]


def test_the_blueprint_is_one_that_image_builder_takes(device: Device) -> None:
    blueprint = Blueprint(name="fleet", customizations=description.customizations(device))
    assert parse_toml(to_toml(blueprint)) == blueprint
    customizations.check(blueprint, image_types.find("edge-commit"))
    parents = {entry["path"] for entry in blueprint.customizations["directories"]}
    for file in blueprint.customizations["files"]:
        parent = str(Path(file["path"]).parent)
        assert parent in parents | {"/etc", "/etc/systemd/system"}


def test_units_pass_systemd_analyze_verify(device: Device, tmp_path: Path) -> None:
    """In a root with the host's own units, those of the installed system, and the device's."""
    units = tmp_path / "usr/lib/systemd/system"
    shutil.copytree("/usr/lib/systemd/system", units, symlinks=True)
    for unit in (GUEST / "usr/lib/systemd/system").glob("rpm-ostreed-automatic.*"):
        shutil.copy(unit, units)
    for name in ("timer", "service"):
        text = (
            "[Timer]\nOnCalendar=daily\n" if name == "timer" else "[Service]\nExecStart=/bin/true\n"
        )
        (units / f"podman-auto-update.{name}").write_text(text)
    for program in ("usr/bin/python3", "usr/bin/podman", "usr/bin/rpm-ostree", "bin/true"):
        fake((tmp_path / program).parent, Path(program).name, "")
    names = {*description.enabled(device)}
    for path, text in texts(device).items():
        target = tmp_path / path[1:]
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        if re.search(r"\.(service|timer)$", path):
            names.add(target.name)
    if not names:
        assert device.policy == "none"
        return
    argv = ["systemd-analyze", "verify", "--man=no", f"--root={tmp_path}", *sorted(names)]
    checked = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    ours = [line for line in checked.stderr.splitlines() if any(n in line for n in OURS)]
    assert ours == []


def test_systemd_analyze_verify_reports_mistakes(tmp_path: Path) -> None:
    """The counterpart of the test above: systemd-analyze names what it does not know."""
    unit = tmp_path / "etc/systemd/system/applyupdate.service"
    unit.parent.mkdir(parents=True)
    unit.write_text(texts(FULL)["/etc/systemd/system/applyupdate.service"] + "Restrat=always\n")
    argv = ["systemd-analyze", "verify", "--man=no", f"--root={tmp_path}", unit.name]
    checked = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert "applyupdate.service:10: Unknown key 'Restrat'" in checked.stderr
    assert "Command /usr/bin/python3 is not executable" in checked.stderr


@pytest.mark.parametrize("window", ["*-*-* 01:30:00", "Sun *-*-* 00:00:00", "Mon..Fri 02:00"])
def test_systemd_understands_the_window(window: str) -> None:
    timer = texts(Device(window=window))["/etc/systemd/system/applyupdate.timer"]
    (line,) = re.findall(r"^OnCalendar=(.*)$", timer, re.MULTILINE)
    subprocess.run(["systemd-analyze", "calendar", line], check=True, capture_output=True)
    assert "RandomizedDelaySec" not in timer


def test_every_timer_that_contacts_a_shared_server_has_splay() -> None:
    splayed = {path for path, text in texts(FULL).items() if "RandomizedDelaySec=1d\n" in text}
    assert splayed == {
        f"/etc/systemd/system/{timer}.timer.d/50-splay.conf"
        for timer in ("rpm-ostreed-automatic", "podman-auto-update")
    }


def test_a_device_checks_for_updates_at_the_configured_time() -> None:
    path = "/etc/systemd/system/rpm-ostreed-automatic.timer.d/50-splay.conf"
    delivered = (GUEST / "usr/lib/systemd/system/rpm-ostreed-automatic.timer").read_text()
    timer = parse_timer(delivered + texts(Device(on_calendar="03:00", splay="2h"))[path])
    assert timer == parse_timer("OnCalendar=03:00\nPersistent=true\nRandomizedDelaySec=2h")
    timer = parse_timer(delivered + texts(Device(splay="2h"))[path])
    assert timer == parse_timer("OnBootSec=1h\nOnUnitInactiveSec=1d\nRandomizedDelaySec=2h")


# podman-systemd.unit(5): keys of a [Container] section since podman 4.4.
CONTAINER_KEYS = {"Image", "ContainerName", "AutoUpdate", "Notify"}


def test_the_quadlet_has_documented_keys_and_values() -> None:
    text = texts(FULL)["/etc/containers/systemd/application.container"]
    sections = dict(re.findall(r"^\[(\w+)\]\n(.*?)(?=^\[|\Z)", text, re.M | re.S))
    assert set(sections) == {"Unit", "Container", "Service", "Install"}
    container = dict(line.split("=", 1) for line in sections["Container"].split("\n") if line)
    assert set(container) == CONTAINER_KEYS
    assert container["Image"] == IMAGE
    assert container["AutoUpdate"] == "registry"
    assert container["Notify"] == "true"
    assert "Restart=on-failure" in sections["Service"]
    assert "WantedBy=multi-user.target" in sections["Install"]
    assert "application.service" not in description.enabled(FULL)  # generated: cannot be enabled


@pytest.mark.skipif(not QUADLET.exists(), reason="podman before 4.4 has no Quadlet")
def test_podmans_own_generator_makes_a_service_of_the_quadlet(tmp_path: Path) -> None:
    (tmp_path / "application.container").write_text(
        texts(FULL)["/etc/containers/systemd/application.container"]
    )
    env = {**os.environ, "QUADLET_UNIT_DIRS": str(tmp_path)}
    generated = subprocess.run([QUADLET, "-dryrun"], env=env, capture_output=True, text=True)
    assert generated.returncode == 0, generated.stderr
    assert "--label io.containers.autoupdate=registry" in generated.stdout
    assert IMAGE in generated.stdout


def test_a_plain_unit_for_podman_without_quadlet() -> None:
    files = texts(PLAIN)
    assert not [path for path in files if path.endswith(".container")]
    unit = files["/etc/systemd/system/application.service"]
    assert "application.service" in description.enabled(PLAIN)
    command = " ".join(unit.replace("\\\n", " ").split())
    assert f"--label io.containers.autoupdate=registry {IMAGE}" in command
    assert "--sdnotify=container" in command


@pytest.mark.skipif(shutil.which("podman") is None, reason="podman is optional")
def test_podman_understands_the_commands_of_the_plain_unit() -> None:
    """With --help, podman reads the whole command line and runs nothing."""
    unit = texts(PLAIN)["/etc/systemd/system/application.service"].replace("\\\n", " ")
    commands = re.findall(r"^Exec\w+=/usr/bin/(podman .*)$", unit, re.MULTILINE)
    assert [command.split()[1] for command in commands] == ["run", "stop", "rm"]
    for command in commands:
        argv = command.replace("%t", "/run").replace("%n", "a").removesuffix(IMAGE).split()
        checked = subprocess.run([*argv, "--help"], capture_output=True, text=True, timeout=60)
        assert checked.returncode == 0, checked.stderr


def test_a_registry_without_tls_is_named() -> None:
    text = texts(FULL)["/etc/containers/registries.conf.d/50-insecure.conf"]
    assert tomllib.loads(text) == {
        "registry": [{"location": "10.0.2.2:5000", "insecure": True}],
    }
    assert not [path for path in texts(PLAIN) if "registries" in path]


@pytest.mark.parametrize("policy", description.POLICIES)
def test_the_policy_decides_which_timers_are_enabled(policy: str) -> None:
    device = Device(policy=policy)
    parsed = texts(device)["/etc/rpm-ostreed.conf"].splitlines()
    assert parsed == ["[Daemon]", f"AutomaticUpdatePolicy={policy}"]
    timers = description.enabled(device)
    assert ("rpm-ostreed-automatic.timer" in timers) == (policy != "none")
    # Nothing waits for a window unless updates are staged.
    assert ("applyupdate.timer" in timers) == (policy == "stage")


@pytest.mark.parametrize(
    "change",
    [
        {"policy": "always"},
        {"window": "daily\nExecStart=/bin/sh"},
        {"window": "soon"},
        {"window": "daily; reboot"},
        {"on_calendar": "daily\nOnBootSec=1"},
        {"on_calendar": "at night"},
        {"splay": "6h\nOnBootSec=1"},
        {"splay": "%n"},
        {"splay": ""},
        {"image": "application"},
        {"image": "library/application:1"},
        {"image": "10.0.2.2:5000/app:1 --privileged"},
        {"image": "10.0.2.2:5000/app:1\n[Service]\nExecStart=/bin/sh"},
        {"image": "10.0.2.2:5000/app@sha256:" + "0" * 64},
        {"image": "10.0.2.2:5000/%h"},
        {"image": "-v/10.0.2.2:5000/app"},
        {"name": "a.service"},
        {"name": "../../../etc/passwd"},
        {"name": "applyupdate"},
        {"name": ""},
        {"registry": '10.0.2.2:5000"\ninsecure = true'},
        {"registry": "http://10.0.2.2:5000"},
    ],
)
def test_values_that_cannot_appear_in_the_files_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        Device(**change)


# the window --------------------------------------------------------------------------------------


def deployment(checksum: str, **state: bool) -> dict[str, Any]:
    return {"checksum": checksum * 64, "version": checksum, "booted": False, **state}


@pytest.mark.parametrize(
    ("deployments", "message", "reboots"),
    [
        (
            [deployment("b", staged=True), deployment("a", booted=True)],
            "rebooting from a (aaaaaaaaaaaa) into b (bbbbbbbbbbbb)\n",
            True,
        ),
        ([deployment("a", booted=True, staged=False)], "nothing is staged: staying with a", False),
        # A pending deployment that is not staged, such as after a rollback, is left alone.
        ([deployment("b"), deployment("a", booted=True)], "nothing is staged: staying", False),
    ],
)
def test_the_window_reboots_only_into_a_staged_deployment(
    tmp_path: Path, deployments: list[dict[str, Any]], message: str, reboots: bool
) -> None:
    (tmp_path / "status").write_text(json.dumps({"deployments": deployments}))
    fake(tmp_path / "bin", "rpm-ostree", f'[ "$*" = "status --json" ] && cat {tmp_path}/status')
    fake(tmp_path / "bin", "systemctl", f'echo "$*" > {tmp_path}/systemctl')
    script = tmp_path / "applyupdate.py"
    script.write_text(texts(FULL)["/etc/applyupdate.py"])
    ran = run_fakes([sys.executable, str(script)], tmp_path / "bin")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.startswith(message)
    assert (tmp_path / "systemctl").exists() == reboots
    if reboots:
        assert (tmp_path / "systemctl").read_text() == "reboot\n"


def test_a_window_without_an_answer_fails_and_does_not_reboot(tmp_path: Path) -> None:
    fake(tmp_path / "bin", "rpm-ostree", "exit 1")
    fake(tmp_path / "bin", "systemctl", f"touch {tmp_path}/systemctl")
    script = tmp_path / "applyupdate.py"
    script.write_text(texts(FULL)["/etc/applyupdate.py"])
    assert run_fakes([sys.executable, str(script)], tmp_path / "bin").returncode != 0
    assert not (tmp_path / "systemctl").exists()
