"""Guests: what they are started with, and real machines with a boot sector as their system."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.disks import boot_sector

from rfe_helpers.cli import vm
from rfe_helpers.core import journal, run
from rfe_helpers.errors import InputError, MediaError
from rfe_helpers.lab.lab import Lab
from rfe_helpers.machine import guest


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    monkeypatch.setenv("RFE_ACCEL", "tcg")
    lab = Lab(tmp_path / "lab", "sandbox")
    yield lab
    lab.sweep()
    journal.open_journal(None)


def test_a_guest_gets_a_seed_and_its_ports(lab: Lab, tmp_path: Path) -> None:
    image = boot_sector(tmp_path, "hello\r\n")
    before = image.read_bytes()
    started = guest.start(
        lab, image, memory_mib=256, cpus=1, persist=False, forwards=((lab.port("web", 8100), 80),)
    )
    spec = started.machine.spec
    assert spec.seed is not None
    assert spec.snapshot
    assert {inside for _, inside in spec.forwards} == {22, 80, 9090}
    assert str(started.port(9090)) in started.console_url
    assert started.host.port == started.port(22)
    again = guest.start(lab, image)
    assert again.machine.spec == spec
    started.machine.kill()
    assert image.read_bytes() == before
    assert guest.find(lab) is None


def test_a_place_for_ssh_can_be_chosen(lab: Lab, tmp_path: Path) -> None:
    port = lab.port("chosen", 2300)
    image = boot_sector(tmp_path, "")
    started = guest.start(lab, image, memory_mib=256, forwards=((port, 22),))
    assert started.port(22) == port
    assert not started.machine.spec.snapshot
    started.machine.kill()


def test_an_overlay_leaves_the_image_alone_and_is_kept(lab: Lab, tmp_path: Path) -> None:
    image = boot_sector(tmp_path, "")
    disk = guest.overlay(lab, image)
    info = json.loads(run.run(["qemu-img", "info", "--output=json", disk]).stdout)
    assert info["virtual-size"] == guest.DISK_BYTES
    assert info["backing-filename"] == str(image)
    modified = disk.stat().st_mtime_ns
    assert guest.overlay(lab, image) == disk
    assert disk.stat().st_mtime_ns == modified


def test_an_image_that_does_not_exist_or_is_not_qcow2(lab: Lab, tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="guest image not found") as caught:
        guest.start(lab, tmp_path / "rhel-9.4-x86_64-kvm.qcow2")
    assert "rfe fetch guest" in caught.value.remedy
    (tmp_path / "disk.raw").write_bytes(bytes(1 << 20))
    with pytest.raises(MediaError, match="not a qcow2 image but raw") as caught:
        guest.start(lab, tmp_path / "disk.raw")
    assert "qemu-img convert" in caught.value.remedy


def test_cloud_init_of_ones_own_is_used(lab: Lab, tmp_path: Path) -> None:
    for name in ("user-data", "meta-data"):
        (tmp_path / name).write_text(f"mine: {name}\n")
    assert guest.documents(lab, "g", tmp_path)["user-data"] == "mine: user-data\n"
    default = guest.documents(lab, "g")
    assert default["meta-data"] == guest.documents(lab, "g")["meta-data"]
    assert default["meta-data"] != guest.documents(lab, "h")["meta-data"]


def test_the_name_of_an_image_says_its_architecture() -> None:
    assert guest.architecture(Path("rhel-9.4-aarch64-kvm.qcow2")) == "aarch64"
    assert guest.architecture(Path("rhel-9.4-x86_64-kvm.qcow2")) == "x86_64"


@pytest.mark.parametrize("text", ["80", "80:", ":80", "0:80", "80:70000", "a:b", "1:2:3", "-1:2"])
def test_what_is_not_a_pair_of_ports_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="not a pair of ports"):
        guest.parse_forward(text)


def test_memory_is_in_mib_or_gib() -> None:
    sizes = [guest.parse_memory(text) for text in ("2048", "512M", "2G", "4g")]
    assert sizes == [2048, 512, 2048, 4096]
    for text in ("", "much", "2T", "1", "99999G", "2.5G"):
        with pytest.raises(InputError, match="not an amount of memory"):
            guest.parse_memory(text)


@pytest.mark.parametrize(
    "words", [[], ["i", "--cpus", "0"], ["i", "--uefi", "--secureboot"], ["i", "--forward", "x"]]
)
def test_wrong_usage_ends_with_2(words: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        vm.main(words)
    assert caught.value.code == 2


def test_vm_says_what_is_where_and_ends_with_its_machine(lab: Lab, tmp_path: Path) -> None:
    image = boot_sector(tmp_path, "")
    command = [sys.executable, "-m", "rfe_helpers.cli.vm", str(image), "--memory", "256"]
    command += ["--headless", "--lab", str(lab.directory), "--name", "g"]
    # The boot sector ignores the power button, so the machine is killed.
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("Ctrl-C"):
                break
        running = guest.find(lab, "g")
        assert running is not None
        running.machine.kill()
        lines += process.stdout
        assert process.wait(timeout=60) == 0
    text = "".join(lines)
    assert f"127.0.0.1:{running.port(22)} -> 22\n" in text
    assert "root, password r: ssh -i" in text
    assert running.console_url in text


def test_vm_without_an_image_says_where_to_get_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert vm.main([str(tmp_path / "no.qcow2"), "--headless", "--lab", str(tmp_path / "l")]) == 1
    message = capsys.readouterr().err
    assert message.startswith("vm: guest image not found")
    assert "rfe fetch guest" in message
