"""The installer's messages, its log, and how it runs commands."""

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
# ostree draws each line of its progress over the last one: it restores the cursor (ESC 8).
_REDRAW = re.compile(r"\r|\x1b8")
# The rest of what a program sends to a terminal besides text: control sequences (ECMA-48), ESC 7.
_ESCAPE = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|7)")


class InstallError(Exception):
    """The installation cannot continue; the message is a single line for a person."""


def _consoles() -> list[Path]:
    """The consoles of the kernel: with `console=tty0 console=ttyS0` the screen and the serial port.

    Empty while an image is built (RFE_IMAGE): the consoles are those of the building machine.
    """
    if "RFE_IMAGE" in os.environ:
        return []
    active = Path("/sys/class/tty/console/active")
    return [Path("/dev", name) for name in active.read_text().split()] if active.exists() else []


def say(line: str) -> None:
    """Print a line on every console and write it to the log."""
    log(line)
    for console in _consoles():
        # The kernel lists a console= port even if the machine does not have it.
        with contextlib.suppress(OSError), console.open("w") as file:
            file.write(f"\r{line}\r\n")


def step(name: str) -> None:
    """Announce the step that begins, or its progress."""
    say(f"{STEP}: {name}")


def log(text: str) -> None:
    """Write a text to the log, which is copied into the installed system."""
    LOG.parent.mkdir(parents=True, exist_ok=True)
    with LOG.open("a") as file:
        file.write(f"[{time.monotonic():7.1f}] {text.rstrip()}\n")


def run(*argv: str | Path, stdin: str = "", check: bool = True) -> str:
    """Run a command and return its stdout, without `check` followed by its stderr.

    The output goes to the log, `stdin` does not. With `check`, raises InstallError with the last
    line of the output if the command fails.
    """
    command = [str(word) for word in argv]
    log("+ " + " ".join(command))
    try:
        result = subprocess.run(command, input=stdin, capture_output=True, text=True)
    except OSError as error:
        raise InstallError(f"{command[0]}: {error.strerror}") from None
    if output := result.stdout + result.stderr:
        log(output)
    if check and result.returncode != 0:
        reason = last_line(result.stderr or result.stdout, result.returncode)
        raise InstallError(f"{command[0]}: {reason}")
    return result.stdout if check else result.stdout + result.stderr


def run_with_progress(argv: Sequence[str | Path], label: str) -> None:
    """Run a command on a pseudo-terminal and announce its progress every few seconds.

    ostree shows its progress only on a terminal.
    """
    command = [str(word) for word in argv]
    log("+ " + " ".join(command))
    ours, theirs = pty.openpty()
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs)
    os.close(theirs)
    output, announced = "", time.monotonic()
    while data := _read(ours):
        output = (output + data)[-4000:]
        if time.monotonic() - announced > PROGRESS_SECONDS:
            step(f"{label}: {last_line(output)}")
            announced = time.monotonic()
    os.close(ours)
    log(last_line(output))
    if (status := process.wait()) != 0:
        raise InstallError(f"{command[0]}: {last_line(output, status)}")


def _read(descriptor: int) -> str:
    try:
        return os.read(descriptor, 65536).decode(errors="replace")
    except OSError:  # Linux reports EIO, not an end of file, when the other side is closed
        return ""


def last_line(text: str, status: int = 0) -> str:
    """The last line of a command's output that is not empty, without terminal sequences."""
    for line in reversed(_REDRAW.sub("\n", text).splitlines()):
        clean = "".join(c for c in _ESCAPE.sub("", line) if c.isprintable()).strip()
        if clean:
            return clean.removeprefix("error: ")
    return f"ended with status {status}"
