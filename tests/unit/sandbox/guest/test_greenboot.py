"""The guest's greenboot stand-in, boot after boot, with fakes of rpm-ostree and systemctl.

The tests set the running deployment, which the kernel's command line names in a guest.
"""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

import rfe_helpers

SOURCE = Path(rfe_helpers.__file__).parent / "sandbox/guest/root/usr/lib/edge/greenboot.py"
OLD, NEW = "a" * 64, "b" * 64


class Device:
    """A machine with two deployments; `calls` records the calls of rpm-ostree and systemctl."""

    def __init__(self, greenboot: ModuleType, directory: Path) -> None:
        self.greenboot = greenboot
        self.directory = directory
        self.calls = directory / "calls"

    def boot(self, commit: str, *, healthy: bool, hangs: bool = False) -> list[str]:
        """One boot of a deployment, through to the end of its checks; returns its calls."""
        self.calls.write_text("")
        check = self.directory / "etc/check/required.d/50_application.sh"
        check.parent.mkdir(parents=True, exist_ok=True)
        check.write_text(f"#!/bin/sh\nexit {0 if healthy else 1}\n")
        check.chmod(0o755)
        self.greenboot.RESULT.unlink(missing_ok=True)
        self.greenboot.booted_commit = lambda: commit
        self.greenboot.count()
        if not hangs and not self.calls.read_text():
            if self.greenboot.check() == 0:
                self.greenboot.green()
            else:
                self.greenboot.red()
        return self.calls.read_text().splitlines()

    def status(self) -> str:
        return "\n".join(self.greenboot.status_lines())


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Device:
    specification = importlib.util.spec_from_file_location("greenboot", SOURCE)
    assert specification is not None
    assert specification.loader is not None
    greenboot = importlib.util.module_from_spec(specification)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    specification.loader.exec_module(greenboot)
    greenboot.STATE = tmp_path / "var/state.json"
    greenboot.MOTD = tmp_path / "run/motd"
    greenboot.RESULT = tmp_path / "result.json"
    greenboot.DIRECTORIES = (tmp_path / "etc",)
    greenboot.CONFIG = tmp_path / "greenboot.conf"
    commands = tmp_path / "bin"
    commands.mkdir()
    status = json.dumps({"deployments": [{"checksum": OLD}, {"checksum": NEW}]})
    for name in ("rpm-ostree", "systemctl"):
        (commands / name).write_text(
            f"#!/bin/sh\n[ \"$1\" = status ] && echo '{status}' && exit\n"
            f'echo {name} "$@" >> {tmp_path}/calls\n'
        )
        (commands / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}:/usr/bin:/bin")
    return Device(greenboot, tmp_path)


REBOOT = "systemctl --no-block reboot"
BACK = [
    "systemctl stop rpm-ostreed-automatic.service",
    "rpm-ostree cleanup --pending",
    "rpm-ostree rollback",
    REBOOT,
]


def test_three_failed_boots_then_the_previous_deployment(device: Device) -> None:
    assert device.boot(OLD, healthy=True) == []
    assert "GREEN" in device.status()
    assert device.boot(NEW, healthy=False) == [REBOOT]
    assert device.boot(NEW, healthy=False) == [REBOOT]
    assert "RED" in device.status()
    assert device.boot(NEW, healthy=False) == BACK
    assert device.boot(OLD, healthy=True) == []
    status = device.status()
    assert "GREEN" in status
    assert "FALLBACK BOOT DETECTED!" in status
    assert f"Deployment {NEW} was not healthy: " in status
    assert "50_application.sh: status 1" in status
    assert device.greenboot.MOTD.read_text().strip() == status


def test_a_boot_that_hangs_counts_too(device: Device) -> None:
    device.boot(OLD, healthy=True)
    for _ in range(3):
        assert device.boot(NEW, healthy=False, hangs=True) == []
    assert device.boot(NEW, healthy=True) == BACK
    device.boot(OLD, healthy=True)
    assert "3 boots did not reach their health checks" in device.status()


def test_an_update_that_becomes_healthy_stays(device: Device) -> None:
    device.boot(OLD, healthy=True)
    assert device.boot(NEW, healthy=False) == [REBOOT]
    assert device.boot(NEW, healthy=True) == []
    assert "FALLBACK" not in device.status()
    # Later failures are not blamed on the update.
    for _ in range(4):
        assert device.boot(NEW, healthy=False) == []


def test_the_number_of_attempts_is_configured(device: Device) -> None:
    device.greenboot.CONFIG.write_text("# more\nGREENBOOT_MAX_BOOT_ATTEMPTS=1\n")
    device.boot(OLD, healthy=True)
    assert device.boot(NEW, healthy=False) == BACK
    device.greenboot.CONFIG.write_text("GREENBOOT_MAX_BOOT_ATTEMPTS=none\n")
    assert device.greenboot.most_attempts() == 3


def test_wanted_checks_only_warn(device: Device) -> None:
    script = device.directory / "etc/check/wanted.d/10_platform.sh"
    script.parent.mkdir(parents=True)
    script.write_text("#!/bin/sh\nexit 4\n")
    script.chmod(0o755)
    assert device.boot(NEW, healthy=True) == []
    assert "GREEN" in device.status()
    assert f"Wanted check failed: {script}: status 4" in device.status()


def test_a_damaged_state_counts_as_empty(device: Device) -> None:
    device.boot(OLD, healthy=True)
    device.greenboot.STATE.write_text('{"good": [')
    assert device.boot(OLD, healthy=True) == []
    assert device.greenboot.load()["good"] == [OLD]


def test_a_device_goes_back_even_while_an_update_is_in_progress(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device.greenboot.time, "sleep", lambda seconds: None)
    busy = device.directory / "busy"
    program = device.directory / "bin" / "rpm-ostree"
    refuse = f'[ "$1" = rollback ] && [ -e {busy} ] && rm {busy} && '
    refuse += "echo 'error: Transaction in progress: another' && exit 1\n"
    program.write_text(program.read_text().replace("#!/bin/sh\n", f"#!/bin/sh\n{refuse}"))
    for _ in range(2):
        assert device.boot(NEW, healthy=False) == [REBOOT]
    busy.touch()
    assert device.boot(NEW, healthy=False) == BACK
    assert not busy.exists()
