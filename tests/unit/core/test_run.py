import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from rfe_helpers.core import journal, run
from rfe_helpers.core.run import ProcessId
from rfe_helpers.core.wait import Deadline, wait_for
from rfe_helpers.errors import CommandFailedError, DeadlineExceededError, ToolMissingError


@pytest.fixture
def commands(tmp_path):
    path = tmp_path / "commands.jsonl"
    journal.open_journal(path)
    yield path
    journal.open_journal(None)


def gone(pid: int) -> bool:
    return ProcessId.of(pid) is None


def test_output_and_status_come_back():
    result = run.run(["sh", "-c", "echo out; echo err >&2"])
    assert (result.status, result.stdout, result.stderr) == (0, "out\n", "err\n")
    assert result.argv == ("sh", "-c", "echo out; echo err >&2")


def test_stdin_is_closed_unless_given():
    assert run.run(["cat"]).stdout == ""
    assert run.run(["cat"], input="grüße").stdout == "grüße"


def test_a_failure_carries_status_tail_remedy_and_log(tmp_path):
    log = tmp_path / "x.log"
    with pytest.raises(CommandFailedError) as caught:
        run.run(["sh", "-c", "echo because >&2; exit 3"], log=log, remedy="try again")
    assert caught.value.status == 3
    assert caught.value.tail == "because"
    assert caught.value.log == log
    assert str(caught.value).endswith("to do: try again")


def test_a_failure_is_a_result_when_not_checked():
    assert run.run(["false"], check=False).status == 1


def test_what_is_not_installed_is_named():
    with pytest.raises(ToolMissingError, match="no-such-command"):
        run.run(["no-such-command"])
    with pytest.raises(ToolMissingError, match="no-such-command, nor-this"):
        run.require("sh", "no-such-command", "nor-this")


def test_a_missing_working_directory_is_not_taken_for_a_missing_command(tmp_path):
    with pytest.raises(CommandFailedError, match="no such directory"):
        run.run(["true"], cwd=tmp_path / "nowhere")


def test_lines_reach_the_log_and_the_caller_as_they_come(tmp_path):
    seen = []
    log = tmp_path / "deep" / "x.log"
    result = run.run(["sh", "-c", "echo one; echo two >&2"], log=log, on_line=seen.append)
    assert seen == ["one", "two"]
    assert log.read_text() == result.stdout == "one\ntwo\n"


@pytest.mark.parametrize("streaming", [False, True])
def test_a_deadline_ends_the_whole_group(tmp_path, streaming):
    pids = tmp_path / "pids"
    script = f"sleep 60 & echo $! > {pids}; sleep 60"
    began = time.monotonic()
    with pytest.raises(DeadlineExceededError, match="took longer than"):
        run.run(["sh", "-c", script], seconds=0.5, log=tmp_path / "log" if streaming else None)
    assert time.monotonic() - began < 10
    assert gone(int(pids.read_text()))


def test_any_exception_of_the_caller_ends_the_group(tmp_path):
    seen: list[ProcessId] = []

    def interrupted(line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.run(["sh", "-c", "echo go; sleep 60"], on_line=interrupted, on_start=seen.append)
    assert not seen[0].alive


def test_ctrl_c_ends_the_group(tmp_path):
    program = (
        "from rfe_helpers.core import run\n"
        "run.run(['sh', '-c', 'echo $$ > pid; sleep 60 & wait'], seconds=60)\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    pid = tmp_path / "pid"
    wait_for(lambda: pid.exists() and pid.read_text().strip(), Deadline(20), "the child runs")
    child.send_signal(signal.SIGINT)
    child.wait(timeout=20)
    assert gone(int(pid.read_text()))


def test_a_command_ends_when_its_caller_is_killed(tmp_path):
    program = (
        "from rfe_helpers.core import run; run.run(['sh', '-c', 'echo $$ > pid; exec sleep 60'])"
    )
    child = subprocess.Popen([sys.executable, "-c", program], cwd=tmp_path)
    pid = tmp_path / "pid"
    wait_for(lambda: pid.exists() and pid.read_text().strip(), Deadline(20), "the child runs")
    child.kill()
    child.wait()
    wait_for(lambda: gone(int(pid.read_text())), Deadline(10), "the command ends, too")


def test_the_environment_is_minimal_and_in_c_utf8(monkeypatch):
    monkeypatch.setenv("SOMETHING_PRIVATE", "x")
    monkeypatch.setenv("RFE_CACHE", "/c")
    text = run.run(["env"], env={"EXTRA": "y"}).stdout.splitlines()
    assert "LC_ALL=C.UTF-8" in text
    assert "RFE_CACHE=/c" in text
    assert "EXTRA=y" in text
    assert not any(line.startswith("SOMETHING_PRIVATE") for line in text)


def test_the_journal_has_a_line_per_command_without_what_came_by_stdin(commands):
    run.run(["cat"], input="a secret")
    run.run(["false"], check=False)
    lines = [json.loads(line) for line in commands.read_text().splitlines()]
    assert [(line["argv"], line["status"]) for line in lines] == [(["cat"], 0), (["false"], 1)]
    assert "a secret" not in commands.read_text()


def test_a_started_process_outlives_the_call_and_is_stopped_by_its_identity(tmp_path):
    log = tmp_path / "x.log"
    process = run.start(["sh", "-c", "echo up; sleep 60"], log=log)
    wait_for(lambda: log.read_text() == "up\n", Deadline(60), "it says so")
    assert process.alive
    run.stop(process)
    assert not process.alive
    assert log.read_text() == "up\n"


def test_a_started_process_that_cannot_be_written_down_is_ended(tmp_path):
    seen = []

    def refuse(process):
        seen.append(process)
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="disk is full"):
        run.start(["sleep", "60"], log=tmp_path / "x.log", on_start=refuse)
    assert not seen[0].alive


def test_ctrl_c_while_a_process_is_written_down_leaves_it_known(tmp_path):
    known = []

    def slowly(process):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.05)
        known.append(process)

    # What runs in the background of a shell ignores Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            run.start(["sleep", "60"], log=tmp_path / "x.log", on_start=slowly)
    finally:
        signal.signal(signal.SIGINT, before)
    assert known[0].alive
    run.stop(known[0])


def test_a_process_with_an_odd_name_disturbs_nobody(tmp_path):
    """The kernel cuts a name at 15 bytes, in the middle of a character."""
    program = tmp_path / "0123456789abcdé"
    shutil.copy(shutil.which("sleep"), program)
    odd = run.start([program, "60"], log=tmp_path / "x.log")
    try:
        with pytest.raises(DeadlineExceededError):
            run.run(["sh", "-c", "trap '' TERM; sleep 37"], seconds=0.5)
        assert odd.alive
    finally:
        run.stop(odd)
    assert not odd.alive


def test_what_cannot_be_started_says_why():
    with pytest.raises(CommandFailedError, match="Argument list too long"):
        run.run(["true", "x" * (1 << 20)])


def test_a_journal_that_cannot_be_written_is_not_a_failure(commands, tmp_path):
    journal.open_journal(tmp_path / "gone" / "commands.jsonl")
    (tmp_path / "gone").rmdir()
    assert run.run(["true"]).status == 0
    run.stop(run.start(["sleep", "60"], log=tmp_path / "x.log"))


def test_stop_kills_what_ignores_term(tmp_path):
    log = tmp_path / "x.log"
    process = run.start(["sh", "-c", "trap '' TERM; echo up; while :; do sleep 1; done"], log=log)
    wait_for(lambda: "up" in log.read_text(), Deadline(10), "it is up")
    run.stop(process, grace=0.3)
    assert not process.alive


def test_kill_ends_a_process_and_its_children_at_once(tmp_path):
    pids = tmp_path / "pids"
    process = run.start(["sh", "-c", f"sleep 60 & echo $! > {pids}; wait"], log=tmp_path / "x.log")
    wait_for(lambda: pids.exists() and pids.read_text().strip(), Deadline(10), "it is up")
    run.kill(process)
    assert not process.alive
    wait_for(lambda: gone(int(pids.read_text())), Deadline(5), "its child is gone")


def test_a_recycled_pid_is_not_taken_for_the_process():
    mine = ProcessId.of(os.getpid())
    assert mine is not None
    assert mine.alive
    another = ProcessId(mine.pid, mine.started - 1, mine.boot)
    earlier_boot = ProcessId(mine.pid, mine.started, "another boot")
    assert not another.alive
    assert not earlier_boot.alive
    run.stop(another)
    run.kill(earlier_boot)  # this test would not get here if they were believed


def test_how_a_started_process_has_ended_is_known(tmp_path):
    process = run.start(["sh", "-c", "sleep 0.1; exit 7"], log=tmp_path / "x.log")
    assert run.status(process) is None
    wait_for(lambda: not process.alive, Deadline(10), "it ends")
    assert run.status(process) == 7
    other = run.start(["sleep", "60"], log=tmp_path / "x.log")
    os.kill(other.pid, signal.SIGSEGV)
    wait_for(lambda: not other.alive, Deadline(10), "it ends")
    assert run.status(other) == -signal.SIGSEGV
    mine = ProcessId.of(os.getpid())
    assert run.status(mine) is None


def test_a_started_process_leaves_no_zombie(tmp_path):
    process = run.start(["sleep", "0.1"], log=tmp_path / "x.log")
    wait_for(lambda: not Path(f"/proc/{process.pid}").exists(), Deadline(10), "it is reaped")


def test_the_tail_is_the_last_lines():
    assert run.tail_of("\n".join(map(str, range(30))) + "\n", 2) == "28\n29"


def test_it_can_be_used_from_several_threads(commands):
    threads = [threading.Thread(target=run.run, args=(["true"],)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len([json.loads(line) for line in commands.read_text().splitlines()]) == 8


def test_a_command_that_does_not_read_its_input_is_judged_by_its_status(tmp_path):
    seen = []
    result = run.run(
        ["sh", "-c", "echo no; exit 3"], input="x" * 1_000_000, check=False, on_line=seen.append
    )
    assert (result.status, seen) == (3, ["no"])
