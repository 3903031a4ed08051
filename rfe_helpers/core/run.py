"""The only door to processes: argv lists, no shell, closed stdin, a minimal environment,
a deadline that ends the whole process group, one line per command in the journal.

The journal is a JSON-lines file chosen with `set_journal` (a lab sets its own
`logs/commands.jsonl`): `{"at": unix seconds, "seconds": s, "argv": […], "status": n}`.
What a command reads from its stdin never gets there, so secrets travel by stdin or by file.

A process that outlives the caller is described by `ProcessId`: pid, start time and boot id, so
that a recycled pid is never taken for it.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NoReturn

from rfe_helpers.core.wait import Deadline
from rfe_helpers.errors import CommandFailedError, DeadlineExceededError, ToolMissingError

TAIL_LINES = 15
_KEPT = (
    *("HOME", "USER", "LOGNAME", "TMPDIR", "XDG_RUNTIME_DIR", "XDG_CACHE_HOME", "XDG_STATE_HOME"),
    *("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "CONTAINERS_CONF", "RFE_CACHE", "RFE_DEBIAN_MIRROR"),
)
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_journal: Path | None = None
_journal_lock = threading.Lock()
_ended: dict[ProcessId, int] = {}  # of processes that `start` has started here
_reapers: dict[ProcessId, threading.Thread] = {}


@dataclass(frozen=True)
class Result:
    """A finished command. `stdout` and `stderr` are decoded as UTF-8 with replacement."""

    argv: tuple[str, ...]
    status: int
    stdout: str
    stderr: str
    seconds: float


@dataclass(frozen=True)
class ProcessId:
    """A process that can be found again: `started` is field 22 of /proc/PID/stat (clock ticks)."""

    pid: int
    started: int
    boot: str

    @classmethod
    def of(cls, pid: int) -> ProcessId | None:
        """The identity of a running process, None if there is none (a zombie is none)."""
        started = _start_time(pid)
        return None if started is None else cls(pid, started, _boot_id())

    @property
    def alive(self) -> bool:
        return self.boot == _boot_id() and _start_time(self.pid) == self.started


def set_journal(path: Path | None) -> None:
    """Write one line per command to `path` from now on (None: nowhere)."""
    global _journal
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
    _journal = path


def record(argv: Sequence[str], started: float, seconds: float, status: int | None) -> None:
    """Add a line to the journal; `started` in Unix seconds. One that cannot be written, on a full
    disk or in a lab that has been removed, is no reason for a command to fail."""
    if _journal is None:
        return
    line = {"at": round(started, 3), "seconds": round(seconds, 3), "argv": list(argv)}
    with suppress(OSError), _journal_lock, _journal.open("a") as file:
        file.write(json.dumps({**line, "status": status}) + "\n")


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment commands get: a C.UTF-8 locale, a PATH with the sbin directories, a few
    settings of the caller's, and `extra`."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    path = f"{os.environ.get('PATH', '')}:{_SYSTEM_PATH}".strip(":")
    return {**kept, "PATH": path, "LC_ALL": "C.UTF-8", **(extra or {})}


def which(tool: str) -> Path | None:
    """Where a command is (the sbin directories are searched too), None if nowhere."""
    found = shutil.which(tool, path=environment()["PATH"])
    return Path(found) if found else None


def require(*tools: str) -> None:
    """Raise ToolMissingError, naming all commands of `tools` that are not installed."""
    missing = [tool for tool in tools if which(tool) is None]
    if missing:
        raise ToolMissingError(
            f"not installed: {', '.join(missing)}",
            remedy="run `rfe doctor`: it prints the command that installs them",
        )


def run(
    argv: Iterable[str | Path],
    *,
    seconds: float | None = None,
    deadline: Deadline | None = None,
    input: str | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    log: Path | None = None,
    check: bool = True,
    on_line: Callable[[str], None] | None = None,
    on_start: Callable[[ProcessId], None] | None = None,
    remedy: str = "",
) -> Result:
    """Run a command to its end and return its Result.

    `seconds` or `deadline` limit it (default 600 s); then the whole process group is ended and
    DeadlineExceededError raised. With `log`, stdout and stderr are appended there as they come, and
    `on_line` sees each line; then Result.stdout holds both. `on_start` is told the process.
    Raises CommandFailedError for a status other than 0 unless `check` is false, ToolMissingError
    if the command is not there. Any exception, Ctrl-C too, ends the group first.
    """
    command = [str(word) for word in argv]
    limit = deadline or Deadline(600 if seconds is None else seconds)
    streaming = log is not None or on_line is not None
    at, began = time.time(), time.monotonic()
    interrupts: list[int] = []
    with _noting_interrupts(interrupts):
        process = _popen(
            command,
            stdin=subprocess.DEVNULL if input is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if streaming else subprocess.PIPE,
            env=env,
            cwd=cwd,
            bound=True,
        )
    status: int | None = None
    try:
        if interrupts:
            raise KeyboardInterrupt
        if on_start is not None and (identity := ProcessId.of(process.pid)) is not None:
            on_start(identity)
        if streaming:
            stdout, stderr = _stream(process, input, limit, log, on_line), ""
        else:
            out, err = process.communicate(
                None if input is None else input.encode(), timeout=limit.left
            )
            stdout, stderr = out.decode(errors="replace"), err.decode(errors="replace")
        status = process.wait(timeout=limit.left or 1)
    except subprocess.TimeoutExpired:
        raise DeadlineExceededError(
            f"{command[0]} took longer than {limit.seconds:.0f} s and was ended",
            remedy=remedy,
            log=log,
        ) from None
    finally:
        if process.poll() is None or status is None:
            _end_group(process.pid)
            process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
        record(command, at, time.monotonic() - began, status)
    if check and status != 0:
        tail = tail_of(stderr.strip() or stdout.strip())
        raise CommandFailedError(command, status, tail, remedy=remedy, log=log)
    return Result(tuple(command), status, stdout, stderr, time.monotonic() - began)


def start(
    argv: Iterable[str | Path],
    *,
    log: Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    on_start: Callable[[ProcessId], None] | None = None,
) -> ProcessId:
    """Start a process that goes on after the caller, in a session of its own, output to `log`.

    Returns its identity, by which `stop` ends it. `on_start` writes that down: whatever happens
    meanwhile, Ctrl-C too, the process is known there, or it is ended. Raises ToolMissingError if
    the command is not there, CommandFailedError if it ended before it could be identified.
    """
    command = [str(word) for word in argv]
    log.parent.mkdir(parents=True, exist_ok=True)
    interrupts: list[int] = []
    with log.open("ab") as file, _noting_interrupts(interrupts):
        at = time.time()
        process = _popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=env,
            cwd=cwd,
        )
        identity = ProcessId.of(process.pid)
        _reap(process, identity)
        try:
            if identity is not None and on_start is not None:
                on_start(identity)
        except BaseException:
            _end_group(process.pid)
            raise
    record(command, at, 0, None)
    if interrupts:
        if on_start is None:
            _end_group(process.pid)
        raise KeyboardInterrupt
    if identity is None:
        status = process.wait()
        raise CommandFailedError(command, status, tail_of(log.read_text(errors="replace")), log=log)
    return identity


def _reap(process: subprocess.Popen[bytes], identity: ProcessId | None) -> None:
    """Nobody waits for it in this process: do so in a thread, that it leaves no zombie."""

    def wait() -> None:
        status = process.wait()
        if identity is not None:
            _ended[identity] = status

    thread = threading.Thread(target=wait, daemon=True, name=f"reap-{process.pid}")
    if identity is not None:
        _reapers[identity] = thread
    thread.start()


def status(process: ProcessId) -> int | None:
    """How a process has ended that this program has started: its exit status, negative for a
    signal. None if it has not, or if another program has started it."""
    if not process.alive and process in _reapers:
        _reapers[process].join(1)
    return _ended.get(process)


def become(argv: Iterable[str | Path], *, env: Mapping[str, str]) -> NoReturn:
    """Go on as another program, with the caller's whole environment and `env`: for what people
    use in their terminal. Raises ToolMissingError if it is not there."""
    command = [str(word) for word in argv]
    program = which(command[0])
    if program is None:
        raise ToolMissingError(f"not installed: {command[0]}", remedy="`rfe doctor` says what is")
    os.execve(program, command, {**os.environ, **env})  # noqa: S606


def stop(process: ProcessId, *, grace: float = 5) -> None:
    """End a process started with `start` and its group: TERM, then KILL after `grace` seconds.

    Does nothing if it has ended or its pid belongs to another process now.
    """
    if process.alive:
        _signal_group(process.pid, signal.SIGTERM)
        limit = Deadline(grace)
        while process.alive and not limit.expired:
            time.sleep(0.05)
    if process.alive:
        _signal_group(process.pid, signal.SIGKILL)
        limit = Deadline(grace)
        while process.alive and not limit.expired:
            time.sleep(0.05)


def kill(process: ProcessId) -> None:
    """End a process and its group at once (KILL), as a power cut would."""
    stop_now = process.alive
    if stop_now:
        _signal_group(process.pid, signal.SIGKILL)
    limit = Deadline(5)
    while process.alive and not limit.expired:
        time.sleep(0.02)


def tail_of(text: str, lines: int = TAIL_LINES) -> str:
    """The last lines of a command's output."""
    return "\n".join(text.rstrip().splitlines()[-lines:])


@contextmanager
def _noting_interrupts(noted: list[int]) -> Iterator[None]:
    """Put Ctrl-C off: while a process is being started, it would be left behind by it."""
    handled = [n for n in (signal.SIGINT, signal.SIGTERM) if callable(signal.getsignal(n))]
    with _handling(handled, lambda number, _: noted.append(number)):
        yield


@contextmanager
def ending_in_order() -> Iterator[None]:
    """Within the block SIGTERM is what Ctrl-C is, a KeyboardInterrupt: what was started is ended,
    and what is half done is removed. For the command lines."""

    def interrupt(number: int, _: object) -> NoReturn:
        raise KeyboardInterrupt

    with _handling([signal.SIGTERM], interrupt):
        yield


@contextmanager
def _handling(numbers: Sequence[int], handler: Callable[[int, Any], object]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # Python delivers signals to the main thread only
        return
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, signal.SIG_DFL if earlier is None else earlier)


def _popen(
    command: list[str],
    *,
    stdin: int,
    stdout: int | IO[bytes],
    stderr: int,
    env: Mapping[str, str] | None,
    cwd: Path | None,
    bound: bool = False,
) -> subprocess.Popen[bytes]:
    """Start a command; a `bound` one is told to end (TERM) when we are killed without a chance
    to end it, by setpriv(1) of util-linux."""
    if cwd is not None and not cwd.is_dir():
        raise CommandFailedError(command, 127, f"no such directory: {cwd}")
    variables = environment(env)
    program = shutil.which(command[0], path=variables["PATH"])
    if program is None:
        raise ToolMissingError(
            f"not installed: {command[0]}",
            remedy="run `rfe doctor`: it prints the command that installs it",
        )
    words = ["setpriv", "--pdeathsig", "TERM"] if bound else []
    try:
        return subprocess.Popen(
            [*words, program, *command[1:]],
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env=variables,
            cwd=cwd,
            start_new_session=True,
        )
    except OSError as error:  # no memory, no permission, too long an argument
        raise CommandFailedError(command, 126, str(error)) from None


def _stream(
    process: subprocess.Popen[bytes],
    input: str | None,
    limit: Deadline,
    log: Path | None,
    on_line: Callable[[str], None] | None,
) -> str:
    """Copy output to the log line by line until its end; a timer ends the group in time."""
    assert process.stdout is not None
    timer = threading.Timer(limit.left, _end_group, [process.pid])
    timer.daemon = True
    timer.start()
    lines: list[str] = []
    file = None
    try:
        if log is not None:
            log.parent.mkdir(parents=True, exist_ok=True)
            file = log.open("a", encoding="utf-8")
        if input is not None and process.stdin is not None:
            # Who ends without reading says why in its output.
            with suppress(BrokenPipeError):
                process.stdin.write(input.encode())
                process.stdin.flush()
            with suppress(BrokenPipeError):
                process.stdin.close()
        for raw in process.stdout:
            line = raw.decode(errors="replace")
            lines.append(line)
            if file is not None:
                file.write(line)
                file.flush()
            if on_line is not None:
                on_line(line.rstrip("\n"))
    finally:
        timer.cancel()
        if file is not None:
            file.close()
    if limit.expired:
        raise subprocess.TimeoutExpired(process.args, limit.seconds)
    return "".join(lines)


def _end_group(pid: int) -> None:
    _signal_group(pid, signal.SIGTERM)
    limit = Deadline(3)
    while not limit.expired:
        if not _group_alive(pid):
            return
        time.sleep(0.05)
    _signal_group(pid, signal.SIGKILL)


def _group_alive(group: int) -> bool:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and _stat_field(int(entry.name), 5) == group:
            return True
    return False


def _signal_group(pid: int, number: signal.Signals) -> None:
    try:
        os.killpg(pid, number)
    except (ProcessLookupError, PermissionError):
        return


def _start_time(pid: int) -> int | None:
    return _stat_field(pid, 22)


def _stat_field(pid: int, field: int) -> int | None:
    """Field `field` (from 4 on) of /proc/PID/stat, None for no process or a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")  # a name may be anything
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[field - 3])


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
