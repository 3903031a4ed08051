"""Several devices at once, with `ssh` replaced by a fake command on PATH."""

from __future__ import annotations

import json
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from rfe_helpers.core.wait import Deadline
from rfe_helpers.errors import CheckFailedError, DeadlineExceededError, NodeError
from rfe_helpers.fleet import survey
from rfe_helpers.fleet.survey import Application, DeviceState, TimerStatus
from rfe_helpers.lab.lab import Lab
from rfe_helpers.machine.node import Node
from rfe_helpers.workbook import devices

NEXT = datetime(2026, 1, 5, 3, 0, 7, tzinfo=UTC)
DIGEST = "sha256:" + "d" * 64
BOOTED = {
    "checksum": "a" * 64,
    "version": "13.1",
    "origin": "edge:debian/13/x86_64/edge",
    "osname": "debian-edge",
    "timestamp": 1795468038,
    "booted": True,
    "staged": False,
    "pinned": False,
}
STAGED = {**BOOTED, "checksum": "b" * 64, "version": "13.2", "booted": False, "staged": True}
TIMERS = [
    {
        "next": int(NEXT.timestamp() * 1e6),
        "left": 1,
        "last": 0,
        "passed": 0,
        "unit": survey.LOOKS,
        "activates": "rpm-ostreed-automatic.service",
    },
    {"next": None, "left": None, "last": None, "passed": None, "unit": "x.timer", "activates": ""},
]
CONTAINER = {"State": {"Status": "running", "Pid": 7}, "ImageDigest": DIGEST}


@pytest.fixture
def nodes(tmp_path: Path) -> list[Node]:
    lab = Lab(tmp_path / "lab")
    return [Node(lab, f"device-{n}", port=2300 + n) for n in (1, 2)]


@pytest.fixture
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fake ssh: port 2301 answers with answer-2301, and so on; without that file it fails."""
    binary = tmp_path / "bin" / "ssh"
    binary.parent.mkdir()
    binary.write_text(
        "#!/bin/sh\n"
        'while [ "$1" != -p ]; do shift; done\n'
        f'for c; do :; done; echo "$c" >> {tmp_path}/commands\n'
        f'cat {tmp_path}/answer-$2 2>/dev/null || {{ echo "no route" >&2; exit 255; }}\n'
    )
    binary.chmod(0o755)
    monkeypatch.setenv("PATH", f"{binary.parent}:/usr/bin:/bin")
    return tmp_path


def answer(directory: Path, port: int, *deployments: dict[str, object], containers: str) -> None:
    answers = (
        f"boot-{port}",
        json.dumps({"deployments": list(deployments)}, indent=2),
        json.dumps(TIMERS),
        containers,
    )
    (directory / f"answer-{port}").write_text("\n---\n".join(answers) + "\n")


def test_a_device_reports_boot_deployments_timers_and_application(
    ssh: Path, nodes: list[Node]
) -> None:
    answer(ssh, 2301, STAGED, BOOTED, containers=json.dumps([CONTAINER], indent=2))
    state = survey.ask(nodes[0])
    assert (state.device, state.boot, state.answers) == ("device-1", "boot-2301", True)
    assert (state.booted, state.staged) == ("a" * 64, "b" * 64)
    assert state.timer() == TimerStatus(survey.LOOKS, "rpm-ostreed-automatic.service", NEXT, None)
    assert state.timers[1].next is None
    assert state.application == Application("running", DIGEST, 7)
    assert state.digest == DIGEST


def test_a_device_whose_systemd_prints_timers_as_a_table_reports_the_rest(
    ssh: Path, nodes: list[Node]
) -> None:
    table = "NEXT  LEFT  LAST  PASSED  UNIT  ACTIVATES\n\n0 timers listed."
    status = json.dumps({"deployments": [BOOTED]})
    (ssh / "answer-2301").write_text("\n---\n".join(("boot-2301", status, table, "[]")))
    state = survey.ask(nodes[0])
    assert (state.booted, state.timers) == ("a" * 64, ())
    (ssh / "answer-2301").write_text(table)
    with pytest.raises(NodeError, match="does not list timers as JSON") as error:
        survey.timers(nodes[0])
    assert error.value.remedy.endswith("systemctl list-timers")


@pytest.mark.parametrize("containers", ["[]", ""])
def test_a_device_without_an_application(ssh: Path, nodes: list[Node], containers: str) -> None:
    answer(ssh, 2301, BOOTED, containers=containers)
    state = survey.ask(nodes[0])
    assert (state.staged, state.application, state.digest) == ("", None, "")


def test_an_application_that_has_ended_runs_no_image(ssh: Path, nodes: list[Node]) -> None:
    ended = {**CONTAINER, "State": {"Status": "exited", "Pid": 0}}
    answer(ssh, 2301, BOOTED, containers=json.dumps([ended]))
    state = survey.ask(nodes[0])
    assert state.application == Application("exited", DIGEST, 0)
    assert state.digest == ""


def test_a_device_that_does_not_answer_has_a_row_that_says_so(ssh: Path, nodes: list[Node]) -> None:
    answer(ssh, 2302, STAGED, BOOTED, containers=json.dumps([CONTAINER]))
    states = survey.ask_all(nodes)
    assert states[0] == DeviceState("device-1")
    text = repr(devices.table(states, {DIGEST: "version 2"}))
    head, _, first, second = text.splitlines()
    assert head.split("  ")[0] == "device"
    assert "does not answer" in first
    for word in ("boot-230", "13.1", "13.2", "Mon 03:00:07", "running", "version 2"):
        assert word in second
    assert "dddddddddddd" in repr(devices.table(states))


def test_an_answer_that_cannot_be_parsed_is_an_error(ssh: Path, nodes: list[Node]) -> None:
    (ssh / "answer-2301").write_text("hello\n")
    with pytest.raises(NodeError, match="device-1: its answer cannot be parsed"):
        survey.ask(nodes[0])


def test_watching_ends_when_all_have_reached_the_goal(
    ssh: Path, nodes: list[Node], capsys: pytest.CaptureFixture[str]
) -> None:
    for node in nodes:
        answer(ssh, node.port, STAGED, BOOTED, containers="[]")
    limit = Deadline(30)
    states = devices.watch(nodes, lambda state: state.staged, limit, "the update is staged")
    assert [state.staged for state in states] == ["b" * 64] * 2
    assert capsys.readouterr().out.count("device-1") == 1


def test_watching_names_the_devices_that_are_late(ssh: Path, nodes: list[Node]) -> None:
    answer(ssh, 2301, STAGED, BOOTED, containers="[]")
    with pytest.raises(DeadlineExceededError, match=r"it is staged: not within 0 s on device-2"):
        devices.watch(nodes, lambda s: s.staged, Deadline(0.2), "it is staged", every=0.05)


def test_a_command_runs_on_all_of_them(ssh: Path, nodes: list[Node]) -> None:
    for node in nodes:
        (ssh / f"answer-{node.port}").write_text(f"{node.name}\n")
    assert survey.everywhere(nodes, "hostname") == ["device-1\n", "device-2\n"]
    assert (ssh / "commands").read_text().count("sudo sh -c hostname") == 2


def test_a_moved_timer_has_only_the_times_it_was_given(ssh: Path, nodes: list[Node]) -> None:
    """systemd-analyze reads the drop-in below another root."""
    (ssh / "answer-2301").write_text("")
    drop_in_text = survey.move_timer(
        nodes[0], survey.LOOKS, "OnActiveSec=10s", "RandomizedDelaySec=20s"
    )
    commands = (ssh / "commands").read_text()
    assert commands.rstrip().endswith(f"systemctl restart {survey.LOOKS}'")
    lines = drop_in_text.splitlines()
    assert lines[0] == f"# /run/systemd/system/{survey.LOOKS}.d/90-moved.conf"

    units = ssh / "root/usr/lib/systemd/system"
    drop_in = units / f"{survey.LOOKS}.d/90-moved.conf"
    drop_in.parent.mkdir(parents=True)
    drop_in.write_text("\n".join(lines[1:]) + "\n")
    source = Path(survey.__file__).parents[1] / "sandbox/guest/root/usr/lib/systemd/system"
    (units / survey.LOOKS).write_text((source / survey.LOOKS).read_text())
    (units / "rpm-ostreed-automatic.service").write_text("[Service]\nExecStart=/bin/true\n")
    for target in ("basic", "shutdown", "sysinit", "time-set", "time-sync", "timers"):
        (units / f"{target}.target").write_text("[Unit]\n")
    (ssh / "root/bin").mkdir()
    (ssh / "root/bin/true").write_text("#!/bin/sh\n")
    (ssh / "root/bin/true").chmod(0o755)
    verify = ["systemd-analyze", "verify", "--man=no", f"--root={ssh / 'root'}", survey.LOOKS]
    checked = subprocess.run(verify, capture_output=True, text=True, timeout=60)
    assert [line for line in checked.stderr.splitlines() if "rpm-ostreed" in line] == []


def test_the_table_of_timers_has_the_requested_ones() -> None:
    timers = survey.parse_timers(json.dumps(TIMERS))
    table = devices.timer_table(timers, [survey.LOOKS])
    assert table.rows == [(survey.LOOKS, "Mon 03:00:07", "rpm-ostreed-automatic.service")]
    with pytest.raises(CheckFailedError, match=survey.PODMAN):
        devices.timer_table(timers, [survey.LOOKS, survey.PODMAN])
