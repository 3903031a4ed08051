"""greenboot's stand-in of the guest, boot after boot: the program itself, in a root directory that
looks like the device's, with rpm-ostree, systemctl and the clock as fakes."""

import json
import os
import shutil
from pathlib import Path

import pytest

import rfe_helpers
from rfe_helpers.core import run
from rfe_helpers.core.run import Result

PROGRAM = Path(rfe_helpers.__file__).parent / "sandbox/guest/root/usr/bin/greenboot"
OLD, NEW = "a" * 64, "b" * 64
# The tools are the host's; the rest, /usr too, is the device's own.
ENTER = """
set -e
cd "$1"
mount --rbind /usr host
mount --bind /dev/null dev/null
exec chroot . /bin/env PATH="$3" /usr/bin/greenboot "$2" <proc/uptime
"""
REQUIRED = "/etc/greenboot/check/required.d"


class Device:
    """A machine with two deployments, of which `boot` runs one."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.calls = directory / "calls"
        self.state = directory / "var/lib/greenboot/state"
        self.config = directory / "etc/greenboot/greenboot.conf"
        self.motd = directory / "run/motd.d/boot-status"
        for name in ("host", "dev", "proc", "fakes", "usr/bin", "etc/greenboot"):
            (directory / name).mkdir(parents=True)
        (directory / "dev/null").touch()
        (directory / "proc/uptime").write_text("100.00 90.00\n")
        for link in ("bin", "lib", "lib64"):
            (directory / link).symlink_to(f"host/{link}")
        shutil.copy(PROGRAM, directory / "usr/bin")
        (directory / "usr/bin/greenboot").chmod(0o755)
        status = json.dumps({"deployments": [{"checksum": OLD}, {"checksum": NEW}]})
        for name in ("rpm-ostree", "systemctl"):
            self.write_fake(
                name, f'[ "$1" = status ] && echo \'{status}\' && exit\necho {name} "$@" >>/calls'
            )

    def write_fake(self, name: str, script: str) -> Path:
        return self._write_program(f"/fakes/{name}", script)

    def write_script(self, path: str, script: str, mode: int = 0o755) -> None:
        """A check, or what runs after the checks."""
        self._write_program(path, script).chmod(mode)

    def _write_program(self, path: str, script: str) -> Path:
        program = self.directory / path[1:]
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        return program

    def greenboot(self, command: str, path: str = "/fakes:/host/bin") -> Result:
        """Run it as its units do, as root."""
        root = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
        return run.run(
            ["unshare", "--mount", *root, "sh", "-c", ENTER, "sh", self.directory, command, path],
            check=False,
        )

    def boot(self, commit: str, *, healthy: bool, hangs: bool = False) -> list[str]:
        """One boot of a deployment, through to the end of its checks; returns what was asked of
        rpm-ostree and systemctl."""
        self.write_script(f"{REQUIRED}/50_application.sh", f"exit {0 if healthy else 1}")
        self.start_kernel(commit)
        assert self.greenboot("count").status == 0
        if not hangs and not self.calls.read_text():
            outcome = "green" if self.greenboot("check").status == 0 else "red"
            assert self.greenboot(outcome).status == 0
        return self.calls.read_text().splitlines()

    def start_kernel(self, commit: str) -> None:
        """What the boot loader and the initramfs leave behind: an empty /run, the arguments of
        the kernel, and the link that they name."""
        self.calls.write_text("")
        shutil.rmtree(self.directory / "run", ignore_errors=True)
        (self.directory / "run").mkdir()
        link = f"/ostree/boot.1/edge/{commit[:8]}/0"
        (self.directory / "proc/cmdline").write_text(f"quiet ostree={link} rw\n")
        path = self.directory / f"sysroot{link}"
        path.parent.mkdir(parents=True, exist_ok=True)
        deployment = self.directory / f"sysroot/ostree/deploy/edge/deploy/{commit}.0"
        deployment.mkdir(parents=True, exist_ok=True)
        if not path.is_symlink():
            path.symlink_to(f"../../../deploy/edge/deploy/{commit}.0")

    def status(self) -> str:
        return self.greenboot("status").stdout.strip()

    def state_lines(self) -> list[str]:
        return self.state.read_text().splitlines()


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path)


REBOOT = "systemctl --no-block reboot"
BACK = [
    "systemctl stop rpm-ostreed-automatic.service bootc-fetch-apply-updates.service",
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


@pytest.mark.parametrize(
    ("text", "most"),
    [
        ("", 3),
        ("# more\nGREENBOOT_MAX_BOOT_ATTEMPTS=1\n", 1),
        (" GREENBOOT_MAX_BOOT_ATTEMPTS = 5\r\n", 5),
        ("GREENBOOT_MAX_BOOT_ATTEMPTS=1\nGREENBOOT_MAX_BOOT_ATTEMPTS=007", 7),
        ("GREENBOOT_MAX_BOOT_ATTEMPTS=08\nOTHER=2\n", 8),
        ("GREENBOOT_MAX_BOOT_ATTEMPTS=" + 20 * "9", 999999999),
        ("GREENBOOT_MAX_BOOT_ATTEMPTS=none\n", 3),
        ("GREENBOOT_MAX_BOOT_ATTEMPTS=0\n", 3),
        ("GREENBOOT_MAX_BOOT_ATTEMPTS=-1\n", 3),
        ("GREENBOOT_MAX_BOOT_ATTEMPTS=1 2\n", 3),
        ("GREENBOOT_MAX_BOOT_ATTEMPTS=5=\n", 3),
        ("GREENBOOT_MAX_BOOT_ATTEMPTS=*\n", 3),
        ("GREENBOOT_MAX_BOOT_ATTEMPTS=$(touch /evil)\n", 3),
        ("GREENBOOT_MAX_BOOT_ATTEMPTS\n", 3),
    ],
)
def test_the_number_of_attempts_is_configured(device: Device, text: str, most: int) -> None:
    device.config.write_text(text)
    device.start_kernel(NEW)
    count = device.greenboot("count")
    assert count.stdout == f"greenboot: attempt 1 of {most} of deployment {NEW[:12]}\n"
    assert not (device.directory / "evil").exists()


def test_one_attempt_can_be_enough(device: Device) -> None:
    device.config.write_text("GREENBOOT_MAX_BOOT_ATTEMPTS=1\n")
    device.boot(OLD, healthy=True)
    assert device.boot(NEW, healthy=False) == BACK


def test_a_device_without_a_previous_deployment_stays(device: Device) -> None:
    device.config.write_text("GREENBOOT_MAX_BOOT_ATTEMPTS=1\n")
    device.write_fake("rpm-ostree", 'echo rpm-ostree "$@" >>/calls; [ "$1" != rollback ]')
    assert device.boot(NEW, healthy=False) == BACK[:-1]
    assert device.state_lines() == [f"trying {NEW} 1"]
    assert "there is no previous deployment to go back to" in device.greenboot("red").stdout


def test_what_the_state_says(device: Device) -> None:
    device.start_kernel(OLD)
    assert device.greenboot("status").stdout.startswith("Boot Status is UNKNOWN")
    device.greenboot("count")
    assert device.state_lines() == [f"trying {OLD} 1"]
    device.boot(OLD, healthy=True)
    assert device.state_lines() == [f"good {OLD}"]
    for _ in range(3):
        device.boot(NEW, healthy=False)
    good, fallback = device.state_lines()
    assert good == f"good {OLD}"
    word, source, target, seconds, why = fallback.split(" ", 4)
    assert (word, source, target) == ("fallback", NEW, OLD)
    assert int(seconds) > 1_700_000_000
    assert why == f"{REQUIRED}/50_application.sh: status 1"


def test_ten_good_deployments_are_remembered(device: Device) -> None:
    commits = [8 * f"{number:08x}" for number in range(12)]
    for commit in (*commits, commits[5]):
        device.boot(commit, healthy=True)
    assert device.state_lines() == [
        f"good {commit}" for commit in (*commits[2:5], *commits[6:], commits[5])
    ]


def test_a_device_that_stays_healthy_starts_no_process_and_writes_nothing(device: Device) -> None:
    device.boot(OLD, healthy=True)
    before = device.state.stat()
    shutil.rmtree(device.directory / "etc/greenboot")
    for command in ("count", "check", "green"):
        result = device.greenboot(command, path="/nowhere")
        assert (result.status, result.stdout, result.stderr) == (0, "", "")
    assert device.state.stat() == before


def test_the_state_is_on_the_disk_before_it_counts(device: Device) -> None:
    device.write_fake("sync", 'echo "sync $1" >>/calls; exec /host/bin/sync "$@"')
    device.write_fake(
        "mv", 'shift; cat "$1" >>/calls; echo "mv $*" >>/calls; exec /host/bin/mv "$@"'
    )
    device.start_kernel(NEW)
    device.greenboot("count")
    directory = "/var/lib/greenboot"
    assert device.calls.read_text().splitlines() == [
        f"sync {directory}/state.tmp",
        f"trying {NEW} 1",
        f"mv {directory}/state.tmp {directory}/state",
        f"sync {directory}",
    ]
    device.write_fake("sync", "exit 1")
    assert device.greenboot("count").status == 1
    assert device.state_lines() == [f"trying {NEW} 1"]


def test_attempts_count_from_the_last_healthy_boot(device: Device) -> None:
    device.boot(OLD, healthy=True)
    device.boot(NEW, healthy=False)
    device.boot(OLD, healthy=True, hangs=True)
    assert device.state_lines() == [f"good {OLD}"]
    for _ in range(2):
        assert device.boot(NEW, healthy=False) == [REBOOT]


def test_arguments_of_the_kernel_are_not_taken_for_patterns(device: Device) -> None:
    device.start_kernel(NEW)
    arguments = device.directory / "proc/cmdline"
    arguments.write_text(arguments.read_text().replace(" rw", " *"))
    (device.directory / "ostree=other").touch()
    assert f"of deployment {NEW[:12]}" in device.greenboot("count").stdout
    assert "rebooting" in device.greenboot("red").stdout


def test_wanted_checks_only_warn(device: Device) -> None:
    device.write_script("/etc/greenboot/check/wanted.d/10_platform.sh", "exit 4")
    assert device.boot(NEW, healthy=True) == []
    assert device.status().splitlines() == [
        "Boot Status is GREEN - Health Check SUCCESS",
        "Wanted check failed: /etc/greenboot/check/wanted.d/10_platform.sh: status 4",
    ]


def test_scripts_of_both_directories_run_by_name(device: Device) -> None:
    vendor = "/usr/lib/greenboot/check/required.d"
    for directory, name in (
        (REQUIRED, "10_a.sh"),
        (vendor, "20 *.sh"),
        (REQUIRED, "20 *.sh"),
        (vendor, "30_b.sh"),
        (REQUIRED, " 40 with  spaces.sh"),
        (vendor, ".50_hidden.sh"),
    ):
        device.write_script(f"{directory}/{name}", f'echo "{directory}/{name}$(cat)"')
    device.write_script(f"{REQUIRED}/05_off.sh", "exit 1", mode=0o644)
    device.write_script(f"{REQUIRED}/06_other", "exit 1")
    device.start_kernel(OLD)
    check = device.greenboot("check")
    assert check.status == 0
    assert check.stdout.splitlines() == [
        f"{REQUIRED}/ 40 with  spaces.sh",
        f"{vendor}/.50_hidden.sh",
        f"{REQUIRED}/10_a.sh",
        f"{vendor}/20 *.sh",
        f"{REQUIRED}/20 *.sh",
        f"{vendor}/30_b.sh",
    ]


def test_scripts_that_fail_are_named_as_they_are(device: Device) -> None:
    name = " a  b\\t $(touch evil) * %s; c.sh"
    device.config.write_text("GREENBOOT_MAX_BOOT_ATTEMPTS=1\n")
    device.write_script(f"{REQUIRED}/{name}", "exit 3")
    device.start_kernel(NEW)
    device.greenboot("count")
    check = device.greenboot("check")
    assert check.status == 1
    assert check.stdout == f"greenboot: check/required.d: {name} failed: status 3\n"
    assert device.status().splitlines() == [
        "Boot Status is RED - Health Check FAILURE!",
        f"{REQUIRED}/{name}: status 3",
    ]
    assert f": {REQUIRED}/{name}: status 3\n" in device.greenboot("red").stdout
    device.start_kernel(OLD)
    assert device.status().endswith(f"was not healthy: {REQUIRED}/{name}: status 3")
    assert not (device.directory / "evil").exists()


def test_a_script_that_does_not_end_is_killed(device: Device) -> None:
    device.write_fake(
        "timeout",  # five minutes that take a second
        'case $4 in *hangs*) echo "$((100 + $3)).00 0" >/proc/uptime ;; esac\n'
        'exec /host/bin/timeout "$1" "$2" 1 "$4"',
    )
    device.write_script(f"{REQUIRED}/10_killed.sh", "exit 137")
    device.write_script(f"{REQUIRED}/20_hangs.sh", "trap '' TERM\nexec sleep 60")
    device.start_kernel(NEW)
    assert device.greenboot("check").status == 1
    assert device.status().splitlines()[1:] == [
        f"{REQUIRED}/10_killed.sh: status 137",
        f"{REQUIRED}/20_hangs.sh: not finished within 300 s",
    ]


def test_what_follows_a_boot_runs_too(device: Device) -> None:
    device.write_script("/etc/greenboot/green.d/10_thanks.sh", "echo green >>/calls")
    device.write_script("/usr/lib/greenboot/red.d/10_help.sh", "echo red >>/calls; exit 2")
    assert device.boot(OLD, healthy=True) == ["green"]
    assert device.boot(NEW, healthy=False) == ["red", REBOOT]
    assert device.boot(OLD, healthy=False) == ["red"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\0\0\0\0",
        '{"good": [',
        f"good {NEW}\ngood {NEW[:9]}",
        f"good {NEW}\n\n",
        f"good {NEW}\nbad {NEW}\n",
        f"good {NEW}\ntrying {NEW}\n",
        f"good {NEW}\ntrying {OLD} x[$(touch /evil)]\n",
        f"good {NEW}\ntrying $(touch /evil) 1\n",
        f"good {NEW}\ngood *\n",
    ],
)
def test_a_state_that_is_damaged_is_none(device: Device, text: str) -> None:
    device.boot(OLD, healthy=True)
    device.state.write_text(text)
    device.start_kernel(NEW)
    assert "attempt 1 of 3 of deployment" in device.greenboot("count").stdout
    assert device.state_lines() == [f"trying {NEW} 1"]
    assert device.boot(NEW, healthy=True) == []
    assert device.state_lines() == [f"good {NEW}"]
    assert not (device.directory / "evil").exists()


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


def test_other_words_are_refused(device: Device) -> None:
    device.start_kernel(OLD)
    for word in ("", "load", "--help"):
        refused = device.greenboot(word)
        assert refused.status == 2
        assert refused.stderr == "usage: greenboot {count|check|green|red|status}\n"
