"""The only place that starts processes: argv lists, no shell, closed stdin, a minimal environment,
a deadline that ends the whole process group, one entry per command in the journal (journal.py).
What a command reads from stdin is not recorded, so secrets are passed by stdin or in a file.

A process that outlives the caller is identified by a `ProcessId`: pid, start time and boot id, so
that a recycled pid is never mistaken for it.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NoReturn

from rfe_helpers.core import files, journal
from rfe_helpers.core.signals import noting_interrupts
from rfe_helpers.core.wait import Deadline
from rfe_helpers.errors import CommandFailedError, DeadlineExceededError, ToolMissingError

TAIL_LINES = 15
# fmt: off
_KEPT = (
    "HOME", "USER", "LOGNAME", "TMPDIR", "XDG_RUNTIME_DIR", "XDG_CACHE_HOME", "XDG_STATE_HOME",
    "http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY",
    "SSL_CERT_FILE", "SSL_CERT_DIR", "CONTAINERS_CONF", "RFE_CACHE", "RFE_DEBIAN_MIRROR",
)
# fmt: on
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_ended: dict[ProcessId, int] = {}  # exit statuses of processes that `start` started here
_reapers: dict[ProcessId, threading.Thread] = {}


@dataclass(frozen=True)
class Result:
    r"""A finished command. `stdout` and `stderr` are decoded as UTF-8 with replacement.

    >>> from rfe_helpers.core import run
    >>> result = run.run(["ls", "/nowhere"], check=False)
    >>> result.status, result.stderr
    (2, "...ls: cannot access '/nowhere': No such file or directory\n")
    """

    argv: tuple[str, ...]
    status: int
    stdout: str
    stderr: str
    seconds: float


@dataclass(frozen=True)
class ProcessId:
    """A process that can be identified later: `started` is field 22 of /proc/PID/stat, in ticks."""

    pid: int
    started: int
    boot: str

    @classmethod
    def of(cls, pid: int) -> ProcessId | None:
        """The identity of a running process; None if it has ended (as a zombie has)."""
        started = _start_time(pid)
        return None if started is None else cls(pid, started, _boot_id())

    @property
    def alive(self) -> bool:
        return self.boot == _boot_id() and _start_time(self.pid) == self.started


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of commands: a C.UTF-8 locale, a PATH with the sbin directories, a few
    variables of the caller, and `extra`."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    path = f"{os.environ.get('PATH', '')}:{_SYSTEM_PATH}".strip(":")
    return {**kept, "PATH": path, "LC_ALL": "C.UTF-8", **(extra or {})}


def which(tool: str) -> Path | None:
    """The path of a command, or None; the sbin directories are searched too.

    >>> from rfe_helpers.core import run
    >>> run.which("ls")
    PosixPath('.../bin/ls')
    """
    path = shutil.which(tool, path=environment()["PATH"])
    return Path(path) if path else None


def require(*tools: str) -> None:
    """Raise ToolMissingError with the names of all `tools` that are not installed.

    >>> from rfe_helpers.core import run
    >>> run.require("ls", "sl-3000")
    Traceback (most recent call last):
        ...
    rfe_helpers.errors.ToolMissingError: not installed: sl-3000...
    """
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
    deadline: Deadline | float | None = None,
    input: str | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    log: Path | None = None,
    check: bool = True,
    on_line: Callable[[str], None] | None = None,
    on_start: Callable[[ProcessId], None] | None = None,
    remedy: str = "",
) -> Result:
    r"""Run a command to its end and return its Result.

    `seconds` or `deadline` limits it (default 600 s); after that the whole process group is ended
    and DeadlineExceededError is raised. With `log`, stdout and stderr are appended to that file as
    they come, with `on_line` each line is passed to it; then Result.stdout holds both. `on_start`
    is called with the process. Raises CommandFailedError for a status other than 0 unless `check`
    is false, with a remedy that names the directory if a disk is full; ToolMissingError if the
    command is not installed. Any exception, Ctrl-C too, ends the group first.

    >>> from rfe_helpers.core import run
    >>> run.run(["echo", "hello"]).stdout
    'hello\n'
    >>> run.run(["sleep", "60"], seconds=0.1)
    Traceback (most recent call last):
        ...
    rfe_helpers.errors.DeadlineExceededError: sleep took longer than 0 s and was ended
    """
    command = [str(word) for word in argv]
    limit = Deadline.of(deadline, 600 if seconds is None else seconds)
    stdin = subprocess.DEVNULL if input is None else subprocess.PIPE
    stderr_to = subprocess.PIPE if log is None and on_line is None else subprocess.STDOUT
    pipes = {"stdin": stdin, "stdout": subprocess.PIPE, "stderr": stderr_to}
    at, began = time.time(), time.monotonic()
    interrupts: list[int] = []
    with noting_interrupts(interrupts):
        process = _popen(command, **pipes, env=env, cwd=cwd, bound=True)
    status: int | None = None
    stdout = ""
    try:
        if interrupts:
            raise KeyboardInterrupt
        if on_start is not None and (identity := ProcessId.of(process.pid)) is not None:
            on_start(identity)
        stdout, stderr = _output(process, input, limit, log, on_line)
        status = process.wait(timeout=limit.left or 1)
    except subprocess.TimeoutExpired:
        raise DeadlineExceededError(
            f"{command[0]} took longer than {limit.seconds:.0f} s and was ended",
            remedy=remedy,
            log=log,
        ) from None
    finally:
        _close(process, ended=status is not None)
        journal.record_command(
            command,
            at,
            time.monotonic() - began,
            status,
            env=env,
            cwd=cwd,
            stdin=input is not None,
            output=stdout,
        )
    if check and status != 0:
        tail = tail_of(stderr.strip() or stdout.strip())
        if files.is_full(tail):
            remedy = _space(command, cwd, log)
        raise CommandFailedError(command, status, tail, remedy=remedy, log=log)
    return Result(tuple(command), status, stdout, stderr, time.monotonic() - began)


def _space(command: Sequence[str], cwd: Path | None, log: Path | None) -> str:
    """What to do about a full disk, which is one of those that a command may have written to."""
    named = [word.rpartition("=")[2] for word in command]
    paths = [Path(word) for word in named if word.startswith("/")]
    scratch = Path(os.environ.get("TMPDIR") or "/var/tmp")  # noqa: S108
    full = files.disk_full([*paths, cwd or Path.cwd(), scratch, Path.home(), *filter(None, [log])])
    return f"{full.message}; {full.remedy}"


def start(
    argv: Iterable[str | Path],
    *,
    log: Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    on_start: Callable[[ProcessId], None] | None = None,
) -> ProcessId:
    """Start a process that keeps running after the caller, in its own session, output to `log`.

    Returns its identity, which `stop` takes. `on_start` is called with it to record it: whatever
    happens meanwhile, Ctrl-C too, the process is either recorded or ended. Raises ToolMissingError
    if the command is not installed, CommandFailedError if it ended before it could be identified.

    >>> from pathlib import Path
    >>> from rfe_helpers.core import run
    >>> process = run.start(["sleep", "60"], log=Path("sleep.log"))
    >>> run.stop(process)
    """
    command = [str(word) for word in argv]
    log.parent.mkdir(parents=True, exist_ok=True)
    interrupts: list[int] = []
    with log.open("ab") as file, noting_interrupts(interrupts):
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
    journal.record_command(command, at, 0, None, env=env, cwd=cwd)
    if interrupts:
        if on_start is None:
            _end_group(process.pid)
        raise KeyboardInterrupt
    if identity is None:
        status = process.wait()
        raise CommandFailedError(command, status, tail_of(log.read_text(errors="replace")), log=log)
    return identity


def _reap(process: subprocess.Popen[bytes], identity: ProcessId | None) -> None:
    """Wait for the process in a thread, so that it does not stay as a zombie."""

    def wait() -> None:
        status = process.wait()
        if identity is not None:
            _ended[identity] = status

    thread = threading.Thread(target=wait, daemon=True, name=f"reap-{process.pid}")
    if identity is not None:
        _reapers[identity] = thread
    thread.start()


def status(process: ProcessId) -> int | None:
    """The exit status of a process that this program started, negative for a signal; None while
    it runs, or if another program started it."""
    if not process.alive and process in _reapers:
        _reapers[process].join(1)
    return _ended.get(process)


def become(argv: Iterable[str | Path], *, env: Mapping[str, str]) -> NoReturn:
    """Replace this program with another, with the caller's whole environment and `env`: for
    programs that people use in their terminal. Raises ToolMissingError if it is not installed."""
    command = [str(word) for word in argv]
    program = which(command[0])
    if program is None:
        raise ToolMissingError(f"not installed: {command[0]}", remedy="`rfe doctor` says what is")
    os.execve(program, command, {**os.environ, **env})  # noqa: S606


def stop(process: ProcessId, *, grace: float = 5) -> None:
    """End a process started with `start` and its group: TERM, then KILL after `grace` seconds.

    Does nothing if it has ended, or if its pid belongs to another process now.

    >>> from pathlib import Path
    >>> from rfe_helpers.core import run
    >>> process = run.start(["sleep", "60"], log=Path("sleep.log"))
    >>> run.stop(process, grace=1)
    >>> process.alive
    False
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
    if process.alive:
        _signal_group(process.pid, signal.SIGKILL)
    limit = Deadline(5)
    while process.alive and not limit.expired:
        time.sleep(0.02)


def tail_of(text: str, lines: int = TAIL_LINES) -> str:
    """The last lines of a command's output."""
    return "\n".join(text.rstrip().splitlines()[-lines:])


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
    """Start a command. A `bound` one gets SIGTERM if this program is killed before it can end
    it, by setpriv(1) of util-linux. A limit that this program has set to its own memory is not
    the command's."""
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
    limit, highest = resource.getrlimit(resource.RLIMIT_DATA)
    if limit != highest:
        words += ["prlimit", f"--data={'unlimited' if highest < 0 else highest}"]
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


def _output(
    process: subprocess.Popen[bytes],
    input: str | None,
    limit: Deadline,
    log: Path | None,
    on_line: Callable[[str], None] | None,
) -> tuple[str, str]:
    """Write `input`, and read stdout and stderr, which are one for `log` or `on_line`."""
    if log is not None or on_line is not None:
        return _stream(process, input, limit, log, on_line), ""
    data = None if input is None else input.encode()
    stdout, stderr = process.communicate(data, timeout=limit.left)
    return stdout.decode(errors="replace"), stderr.decode(errors="replace")


def _close(process: subprocess.Popen[bytes], *, ended: bool) -> None:
    """Close the pipes of a process, which is ended first, with its group, unless it has `ended`."""
    if process.poll() is None or not ended:
        _end_group(process.pid)
        process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()


def _stream(
    process: subprocess.Popen[bytes],
    input: str | None,
    limit: Deadline,
    log: Path | None,
    on_line: Callable[[str], None] | None,
) -> str:
    """Copy output to the log line by line to its end; a timer ends the group at the deadline."""
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
            # A command that exits without reading its input says why in its output.
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
    """Field `field` (4 or higher) of /proc/PID/stat; None if there is no process, or a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")  # a name may be anything
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[field - 3])


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
