"""greenboot's stand-in of the guest, boot after boot: the program itself, in a root directory that
looks like the device's, with rpm-ostree and systemctl as fakes."""

import json
import os
import shutil
from pathlib import Path

import pytest

import rfe_helpers
from rfe_helpers.core import run
from rfe_helpers.core.run import Result

SOURCE = Path(rfe_helpers.__file__).parent / "sandbox/guest/root/usr/lib/edge/greenboot.py"
OLD, NEW = "a" * 64, "b" * 64
# /usr is the host's, for its Python; the rest is the device's own.
ENTER = """
set -e
cd "$1"
mount --rbind /usr usr
mount --bind /dev/null dev/null
exec chroot . env PATH=/fakes:/usr/bin /usr/bin/python3 -I /greenboot.py "$2"
"""


class Device:
    """A machine with two deployments, of which `boot` runs one."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.calls = directory / "calls"
        self.state = directory / "var/lib/greenboot/state.json"
        self.config = directory / "etc/greenboot/greenboot.conf"
        self.motd = directory / "run/motd.d/boot-status"
        for name in ("usr", "dev", "proc", "fakes", "etc/greenboot", "sysroot/ostree/deploy"):
            (directory / name).mkdir(parents=True)
        (directory / "dev/null").touch()
        for link in ("bin", "lib", "lib64"):
            (directory / link).symlink_to(f"usr/{link}")
        shutil.copy(SOURCE, directory)
        status = json.dumps({"deployments": [{"checksum": OLD}, {"checksum": NEW}]})
        for name in ("rpm-ostree", "systemctl"):
            fake = directory / "fakes" / name
            fake.write_text(
                f"#!/bin/sh\n[ \"$1\" = status ] && echo '{status}' && exit\n"
                f'echo {name} "$@" >>/calls\n'
            )
            fake.chmod(0o755)

    def greenboot(self, command: str) -> Result:
        """Run it as its units do, as root."""
        root = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
        return run.run(
            ["unshare", "--mount", *root, "sh", "-c", ENTER, "sh", self.directory, command],
            check=False,
        )

    def boot(self, commit: str, *, healthy: bool, hangs: bool = False) -> list[str]:
        """One boot of a deployment, through to the end of its checks; returns what was asked of
        rpm-ostree and systemctl."""
        self.calls.write_text("")
        self.write_check("required.d/50_application.sh", 0 if healthy else 1)
        self._start_kernel(commit)
        assert self.greenboot("count").status == 0
        if not hangs and not self.calls.read_text():
            outcome = "green" if self.greenboot("check").status == 0 else "red"
            assert self.greenboot(outcome).status == 0
        return self.calls.read_text().splitlines()

    def _start_kernel(self, commit: str) -> None:
        """What the boot loader and the initramfs leave behind: an empty /run, the arguments of
        the kernel, and the link that they name."""
        shutil.rmtree(self.directory / "run", ignore_errors=True)
        (self.directory / "run").mkdir()
        link = f"/ostree/boot.1/edge/{commit[:8]}/0"
        (self.directory / "proc/cmdline").write_text(f"quiet ostree={link} rw\n")
        path = self.directory / f"sysroot{link}"
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_symlink():
            path.symlink_to(f"../../../deploy/edge/deploy/{commit}.0")

    def write_check(self, name: str, status: int) -> None:
        script = self.directory / "etc/greenboot/check" / name
        script.parent.mkdir(parents=True, exist_ok=True)
        script.write_text(f"#!/bin/sh\nexit {status}\n")
        script.chmod(0o755)

    def status(self) -> str:
        return self.greenboot("status").stdout.strip()


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path)


REBOOT = "systemctl --no-block reboot"
BACK = [
    "systemctl stop rpm-ostreed-automatic.service",
    *("rpm-ostree cleanup --pending", "rpm-ostree rollback", REBOOT),
]


def test_three_failed_boots_then_the_previous_deployment(device: Device) -> None:
    assert device.boot(OLD, healthy=True) == []
    assert "GREEN" in device.status()
    assert device.boot(NEW, healthy=False) == [REBOOT]
    assert device.boot(NEW, healthy=False) == [REBOOT]
    assert "RED" in device.status()
    assert device.boot(NEW, healthy=False) == BACK
    assert device.boot(OLD, healthy=True) == []
    said = device.status()
    assert "GREEN" in said
    assert "FALLBACK BOOT DETECTED!" in said
    assert f"Deployment {NEW} was not healthy: " in said
    assert "50_application.sh: status 1" in said
    assert device.motd.read_text().strip() == said


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
    # Later it fails again: there is nothing new to blame.
    for _ in range(4):
        assert device.boot(NEW, healthy=False) == []


def test_the_number_of_attempts_is_configured(device: Device) -> None:
    device.config.write_text("# more\nGREENBOOT_MAX_BOOT_ATTEMPTS=1\n")
    device.boot(OLD, healthy=True)
    assert device.boot(NEW, healthy=False) == BACK
    device.config.write_text("GREENBOOT_MAX_BOOT_ATTEMPTS=none\n")
    assert "attempt 1 of 3 of deployment" in device.greenboot("count").stdout


def test_wanted_checks_only_warn(device: Device) -> None:
    device.write_check("wanted.d/10_platform.sh", 4)
    assert device.boot(NEW, healthy=True) == []
    assert "GREEN" in device.status()
    assert (
        "Wanted check failed: /etc/greenboot/check/wanted.d/10_platform.sh: status 4"
        in device.status()
    )


def test_a_state_that_is_damaged_is_none(device: Device) -> None:
    device.boot(OLD, healthy=True)
    device.state.write_text('{"good": [')
    assert device.boot(OLD, healthy=True) == []
    assert json.loads(device.state.read_text())["good"] == [OLD]


def test_a_device_goes_back_also_when_an_update_is_on_its_way(device: Device) -> None:
    busy = device.directory / "busy"
    program = device.directory / "fakes/rpm-ostree"
    refuse = '[ "$1" = rollback ] && [ -e /busy ] && rm /busy && '
    refuse += "echo 'error: Transaction in progress: another' && exit 1\n"
    program.write_text(program.read_text().replace("#!/bin/sh\n", f"#!/bin/sh\n{refuse}"))
    for _ in range(2):
        assert device.boot(NEW, healthy=False) == [REBOOT]
    busy.touch()
    assert device.boot(NEW, healthy=False) == BACK
    assert not busy.exists()
