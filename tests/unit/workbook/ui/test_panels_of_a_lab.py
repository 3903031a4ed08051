"""The panels for the commits of a lab, its machine, and the system on that."""

from __future__ import annotations

import re
from pathlib import Path

import ipywidgets as widgets
import pytest
from support import panels
from support.disks import boot_sector
from support.lessons import python_of, run_python, run_shell, shells_of
from support.panels import field, message, press, text
from support.trees import make_commit_tar, make_tree

from rfe_helpers.commit.ostree import Package, Repo
from rfe_helpers.core import journal
from rfe_helpers.core.wait import Deadline, wait_for
from rfe_helpers.errors import NodeError
from rfe_helpers.lab.lab import Lab
from rfe_helpers.machine.node import Node
from rfe_helpers.machine.qemu import VmSpec
from rfe_helpers.workbook.ui import CommitBrowser, MachinePanel, NodePanel
from rfe_helpers.workbook.ui.parts import Panel

REF = "debian/13/x86_64/edge"
DPKG = "usr/lib/sysimage/dpkg/info"
HASH = "$6$abcdefgh$" + "x" * 86


@pytest.fixture
def lab(tmp_path: Path):
    lab = Lab(tmp_path / "lab")
    yield lab
    lab.sweep()
    journal.open_journal(None)


def shown(panel: Panel) -> Panel:
    """The panel with its widgets, as shown to a user; it does not refresh by itself."""
    panel.every = 3600
    assert panel.box.children
    return panel


def commit_tar(
    lab: Lab, name: str, files: dict[str, str], *packages: str, version: str = "1"
) -> Path:
    """A commit.tar in the lab, of a small tree with `files` and `packages`."""
    work = lab.path("work", name, "x").parent
    repo = Repo(work / "repo").init()
    tree = make_tree(work / "tree.tar", files)
    package_list = [Package(package, "0", "1.0", "1", "x86_64") for package in packages]
    repo.commit_tar(tree, REF, subject=name, version=version, packages=package_list)
    tree.unlink()
    (work / "compose.json").write_text("{}")
    return make_commit_tar(lab.path("composes", f"{name}-commit.tar"), work)


@pytest.fixture
def browser(lab: Lab) -> CommitBrowser:
    commit_tar(lab, "bbbbbbbb", {"usr/bin/tmux": "t"}, "bash", "tmux")
    files = {
        "usr/bin/bash": "#!" * 50,
        "usr/etc/motd": "welcome\n",
        "usr/etc/shadow": f"core:{HASH}:1::::::\n",
        "usr/bin/sh": "-> bash",
        "usr/bin/data": "\0\1",
    }
    return CommitBrowser(lab, commit_tar(lab, "aaaaaaaa", files, "bash", "nano", version="2"))


def test_packages_are_filtered(browser: CommitBrowser):
    shown(browser)
    assert "2 packages" in text(browser, "packages")
    field(browser, "part of a name").value = "nan"
    assert "nano" in text(browser, "packages")
    assert "bash" not in text(browser, "packages")
    assert browser.about(browser.source).rows[0] == ("Ref", REF)


def test_the_tree_is_walked_and_a_file_is_read_without_its_secrets(browser: CommitBrowser):
    shown(browser)
    press(browser, "Open")
    assert text(browser, "path").startswith("<code>/</code>, ")
    entries = panels.only(browser, widgets.Select)

    def choose(name: str) -> None:
        (entries.value,) = [value for label, value in entries.options if name in label.split()]

    press(browser, "▸ usr")
    assert [b.description for b in panels.buttons(browser)].count("▸ usr") == 0
    assert "▸ bin" in [b.description for b in panels.buttons(browser)]
    press(browser, "▸ etc")
    assert field(browser, "Path").value == "/usr/etc"
    assert text(browser, "content") == "", "no file is chosen yet"
    choose("motd")
    assert "welcome" in text(browser, "content")
    assert "cat" in text(browser, "lesson")
    choose("shadow")
    assert "core:(a password hash, hidden)" in text(browser, "content")
    press(browser, "Up")
    press(browser, "▸ bin")
    choose("sh")
    assert "a link to bash" in text(browser, "content")
    choose("data")
    assert "2 B of binary data" in text(browser, "content")


def test_a_path_is_typed(browser: CommitBrowser):
    shown(browser)
    field(browser, "Path").value = "usr/etc/motd"  # as Enter does
    browser.wait(60)
    assert "welcome" in text(browser, "content")
    assert field(browser, "Path").value == "/usr/etc"
    field(browser, "Path").value = "/usr/nothing"
    browser.wait(60)
    assert "✘ the commit has no /usr/nothing<br>to do:" in message(browser)


def test_commits_are_named_by_date_and_version(browser: CommitBrowser):
    shown(browser)
    names = [label for label, _ in field(browser, "Commit").options]
    today = r"20\d\d-\d\d-\d\d \d\d:\d\d"
    assert len(names) == 2
    for name, version in zip(sorted(names), ("1", "2"), strict=True):
        assert re.fullmatch(rf"{today}, {version}, commit\.tar", name)
    commit_tar(browser.lab, "cccccccc", {}, version="1")
    browser.lab.path("composes", "dddddddd-commit.tar").write_bytes(b"cut off")
    browser.refresh()
    names = [label for label, _ in field(browser, "Commit").options]
    assert [name for name in names if name.endswith("1, commit.tar, cccccccc")], names
    assert "unreadable, commit.tar" in names


def test_two_commits_are_compared(browser: CommitBrowser):
    shown(browser)
    first, second = field(browser, "Commit"), field(browser, "Second")
    (second.value,) = [source for _, source in second.options if "bbbbbbbb" in source]
    press(browser, "Compare")
    differences = "2 packages not the same; files: 1 added, 6 removed, 0 modified"
    assert differences in text(browser, "difference")
    second.value = first.value
    assert text(browser, "difference") == "", "it was about other commits"
    press(browser, "Compare")
    assert "both are the same commit<br>to do: choose another" in message(browser)
    second.value = None
    press(browser, "Compare")
    assert "there is no second commit<br>to do: choose one" in message(browser)


def test_buttons_without_a_commit_say_what_to_do(browser: CommitBrowser):
    shown(browser)
    field(browser, "Commit").value = None
    for label in ("Measure", "Open", "Compare"):
        press(browser, label)
        assert "there is no commit yet<br>to do: download one" in message(browser)


def test_sizes_of_a_tree_without_a_package_database_are_refused(browser: CommitBrowser):
    shown(browser)
    press(browser, "Measure")
    assert "has no dpkg database" in message(browser)
    assert "Traceback" not in message(browser)


def test_the_lines_of_the_browser(browser: CommitBrowser, tmp_path: Path):
    owned = {f"{DPKG}/bash.list": "/usr/bin/bash\n"}
    browser = CommitBrowser(browser.lab, commit_tar(browser.lab, "eeeeeeee", owned, "bash"))
    shown(browser)
    python = [python_of(browser)]
    assert "bash-1.0" in run_shell(*shells_of(browser), tmp_path)
    press(browser, "Measure")
    python.append(python_of(browser))
    press(browser, "Open")
    press(browser, "▸ usr")
    python.append(python_of(browser))
    assert "/usr/lib" in run_shell(*shells_of(browser), tmp_path)
    field(browser, "Path").value = f"/{DPKG}/bash.list"
    browser.wait(60)
    python.append(python_of(browser))
    assert run_shell(*shells_of(browser), tmp_path) == "/usr/bin/bash\n"
    second = field(browser, "Second")
    (second.value,) = [source for _, source in second.options if "aaaaaaaa" in source]
    press(browser, "Compare")
    python.append(python_of(browser))
    assert "+ package nano" in run_shell(*shells_of(browser), tmp_path)
    assert run_python(python) == "/usr/bin/bash\n\n"


def test_the_twin_of_the_browser_shows_the_commit(browser: CommitBrowser):
    twin = repr(browser)
    assert "2 packages, the first 8 here" in twin
    assert "rfe commit packages" in twin


@pytest.fixture
def machine(lab: Lab, tmp_path: Path) -> MachinePanel:
    """A machine that writes to its console and then runs for ever."""
    text = "\x1b[!p\x1b]104\x07[\x1b[0;32m  OK  \x1b[0m] Started\r\nm login: \r\n"
    disk = boot_sector(lab.path("machines", "m", "x").parent, text)
    lab.record(
        "install",
        machine="m",
        disk=disk,
        ssh_port=lab.port("ssh-m", 18400),
        user="core",
        firmware="bios",
        memory_mib=64,
    )
    return MachinePanel(lab, "m")


def test_a_machine_is_started_shown_reset_and_stopped(machine: MachinePanel):
    shown(machine)
    assert "○ off" in text(machine, "state")
    find = python_of(machine)
    screen = panels.only(machine, widgets.Image)
    assert screen.layout.display == "none"
    press(machine, "Stop")
    assert "m is off<br>to do: start it first" in message(machine)
    press(machine, "Start")
    assert "✔ m is on" in message(machine)
    wait_for(lambda: "login:" in machine.console(), Deadline(60), "it boots")
    assert "[  OK  ] Started\nm login:" in machine.console()
    machine.refresh()
    assert "● running" in text(machine, "state")
    assert bytes(screen.value).startswith(b"\x89PNG")
    assert "ssh -i" in text(machine, "state")
    assert "login:" in machine.twin().text
    other = MachinePanel(machine.lab, "m")
    assert other.machine is not None, "a second window finds it"
    start = python_of(machine)
    press(machine, "Reset")
    assert "✔ reset" in message(machine)
    run_python([find, start, python_of(machine)])
    press(machine, "Start")
    assert "✔ m is on" in message(machine)
    machine.refresh()
    assert "✔ m is on" in message(machine)
    (stop,) = [button for button in panels.buttons(machine) if button.description == "Stop"]
    stop.click()
    assert python_of(machine).endswith(".stop()")
    other.machine.kill()  # its boot sector does not know of the power button
    machine.wait(60)
    assert "✔ m is off" in message(machine)
    press(machine, "Start")
    other.machine.kill()
    machine.refresh()
    assert "○ off" in text(machine, "state")
    assert "m is on" not in message(machine), "state and message agree"


def test_a_system_is_queried_updated_rebooted_and_rolled_back(lab: Lab, ssh: Path, sshd: int):
    panel = NodePanel(Node(lab, "edge-1", port=sshd))
    shown(panel)
    assert "staged: boots next" in text(panel, "deployments")
    press(panel, "Look")
    assert "rpm-ostreed-automatic.timer" in text(panel, "timers")
    assert "no podman" in text(panel, "containers")
    press(panel, "Update")
    assert "✔ Run &quot;systemctl reboot&quot;" in message(panel)
    press(panel, "Reboot")
    assert "✔ it is up again" in message(panel)
    press(panel, "Roll back")
    assert "boots next: press Reboot" in message(panel)
    assert "sudo rpm-ostree rollback" in text(panel, "lesson")
    commands = ssh.read_text()
    for command in ("rpm-ostree upgrade", "systemctl reboot", "rpm-ostree rollback"):
        assert command in commands


def test_a_system_that_does_not_answer_is_reported(lab: Lab, ssh: Path):
    binary = ssh.parent / "bin" / "ssh"
    binary.write_text("#!/bin/sh\necho 'Connection refused' >&2\nexit 255\n")
    panel = NodePanel(Node(lab, "edge-1", port=2222))
    assert "edge-1 does not answer over SSH: Connection refused" in panel.twin().text
    shown(panel)
    assert "✘ edge-1 does not answer" in message(panel)
    assert "check that the machine is running" in message(panel)
    assert "○ edge-1 does not answer" in text(panel, "deployments")


def test_a_system_that_stops_answering_does_not_keep_its_deployments(lab: Lab, ssh: Path):
    panel = NodePanel(Node(lab, "edge-1", port=2222))
    shown(panel)
    binary = ssh.parent / "bin" / "ssh"
    answering = binary.read_text()
    press(panel, "Roll back")
    assert "✔ the other deployment boots next" in message(panel)
    binary.write_text("#!/bin/sh\necho 'Connection refused' >&2\nexit 255\n")
    with pytest.raises(NodeError):
        panel.refresh()
    assert "○ edge-1 does not answer" in text(panel, "deployments")
    assert "boots next" not in message(panel)
    binary.write_text(answering)
    panel.refresh()
    assert "staged: boots next" in text(panel, "deployments")


def test_under_rfe_lab_open_screen_and_console_are_the_page(
    machine: MachinePanel, monkeypatch: pytest.MonkeyPatch
):
    assert "live: rfe lab open --lab" in machine.twin().text
    monkeypatch.setenv("RFE_MACHINES", "/user/a/rfe/machines")
    monkeypatch.setenv("RFE_LAB", str(machine.lab.directory))
    shown(machine)
    assert '<iframe src="/user/a/rfe/machines/m"' in text(machine, "live")
    assert not [each for each in panels.all_widgets(machine) if isinstance(each, widgets.Image)]
    machine.refresh()
    assert "○ off" in text(machine, "state")


def test_a_panel_starts_a_machine_as_it_is_told(lab: Lab, tmp_path: Path):
    spec = VmSpec("x", disk=boot_sector(tmp_path, "hi"), memory_mib=64, cpus=1, network=False)
    panel = MachinePanel(lab, "x", spec)
    shown(panel)
    assert "ssh" not in text(panel, "state"), "nothing is known about the system on it"
    press(panel, "Start")
    assert "✔ x is on" in message(panel)
    assert panel.machine is not None
    assert panel.machine.spec == spec
    run_python([python_of(panel)])
    panel.machine.kill()
