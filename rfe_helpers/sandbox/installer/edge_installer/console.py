"""What the installer says, and the one way in which it runs a command."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

STEP = "RFE-INSTALL-STEP"
OK = "RFE-INSTALL-OK"
FAILED = "RFE-INSTALL-FAILED"
LOG = Path("/run/install/install.log")
PROGRESS_SECONDS = 5
# ostree draws each line of its progress over the last one, by restoring the cursor (ESC 8).
_REDRAW = re.compile(r"\r|\x1b8")
# What else a program sends to a terminal besides text: control sequences (ECMA-48), ESC 7.
_ESCAPE = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|7)")


class InstallError(Exception):
    """The installation cannot go on; the message is one line for a person."""


def _consoles() -> list[Path]:
    """All consoles of the kernel: with `console=tty0 console=ttyS0` the screen and the port.

    None while an image is made (RFE_IMAGE): they would be those of the machine that makes it.
    """
    if "RFE_IMAGE" in os.environ:
        return []
    active = Path("/sys/class/tty/console/active")
    return [Path("/dev", name) for name in active.read_text().split()] if active.exists() else []


def say(line: str) -> None:
    """Print a line on every console and keep it in the log."""
    log(line)
    for console in _consoles():
        # The kernel lists a console= port even where the machine has none.
        with contextlib.suppress(OSError), console.open("w") as file:
            file.write(f"\r{line}\r\n")


def step(what: str) -> None:
    """Say which step begins (or how far it is)."""
    say(f"{STEP}: {what}")


def log(text: str) -> None:
    """Keep a text in the log that is copied into the installed system."""
    LOG.parent.mkdir(parents=True, exist_ok=True)
    with LOG.open("a") as file:
        file.write(f"[{time.monotonic():7.1f}] {text.rstrip()}\n")


def run(*argv: str | Path, stdin: str = "", check: bool = True) -> str:
    """Run a command and return its stdout (without `check` its stderr, too); its output goes to
    the log.

    Raises InstallError with the command's last line, unless `check` is false. `stdin` is not
    logged.
    """
    command = [str(word) for word in argv]
    log("+ " + " ".join(command))
    try:
        done = subprocess.run(command, input=stdin, capture_output=True, text=True)
    except OSError as error:
        raise InstallError(f"{command[0]}: {error.strerror}") from None
    if output := done.stdout + done.stderr:
        log(output)
    if check and done.returncode != 0:
        reason = last_line(done.stderr or done.stdout, done.returncode)
        raise InstallError(f"{command[0]}: {reason}")
    return done.stdout if check else done.stdout + done.stderr


def run_with_progress(argv: Sequence[str | Path], label: str) -> None:
    """Run a command that draws its progress on a terminal; say every few seconds how far it is.

    ostree shows progress only on a terminal, so it gets a pseudo-terminal.
    """
    command = [str(word) for word in argv]
    log("+ " + " ".join(command))
    ours, theirs = pty.openpty()
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs)
    os.close(theirs)
    output, said = "", time.monotonic()
    while data := _read(ours):
        output = (output + data)[-4000:]
        if time.monotonic() - said > PROGRESS_SECONDS:
            step(f"{label}: {last_line(output)}")
            said = time.monotonic()
    os.close(ours)
    log(last_line(output))
    if (status := process.wait()) != 0:
        raise InstallError(f"{command[0]}: {last_line(output, status)}")


def _read(descriptor: int) -> str:
    try:
        return os.read(descriptor, 65536).decode(errors="replace")
    except OSError:  # Linux answers EIO, not an end of file, when the other side has gone
        return ""


def last_line(text: str, status: int = 0) -> str:
    """The last line of a command's output that says something, without terminal sequences."""
    for line in reversed(_REDRAW.sub("\n", text).splitlines()):
        clean = "".join(c for c in _ESCAPE.sub("", line) if c.isprintable()).strip()
        if clean:
            return clean.removeprefix("error: ")
    return f"ended with status {status}"
