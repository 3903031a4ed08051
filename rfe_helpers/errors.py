"""Everything that this package raises.

RfeError                        what happened, where the log is, what to do next
├── InputError                  an argument of the caller is wrong; nothing was started
│   ├── BlueprintError          a blueprint that cannot be read or used
│   ├── KickstartError          a kickstart that does not parse, with its line
│   ├── ParameterError          a notebook parameter that does not exist or does not fit
│   └── ProfileError            a profile that is unknown or malformed
├── ToolMissingError            a command that this step needs is not installed
├── CommandFailedError          a command exited with an error, was killed, or did not start
├── DiskFullError               a disk is full: the directory, and how much is free there
├── DeadlineExceededError       something took longer than it was allowed to
├── LabError                    the lab directory cannot be used
│   └── StepMissingError        an earlier notebook has not been run in this lab
├── BuilderError                the Image Builder cannot be reached or does not start
│   ├── ConnectionLostError     it exited, or closed the connection before it had answered
│   ├── ApiError                it answered with an error: HTTP status, id and message
│   └── ComposeFailedError      a compose failed: the stage and its last lines
├── CommitError                 a commit, repository or archive that cannot be read
├── ServeError                  a repository cannot be published
│   └── PodmanError             podman is not installed, or cannot run containers here
├── MediaError                  a boot ISO or an image that cannot be downloaded, read or made
├── MachineError                a virtual machine does not start or does not answer
│   ├── GuestPanicError         its kernel panicked
│   └── QemuCrashError          QEMU itself crashed
├── NodeError                   an installed system answered with something unexpected
└── CheckFailedError            a notebook's check did not hold

The sandbox's service and its installer run as programs of their own. Exceptions that never leave
them are defined where they are raised.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


class RfeError(Exception):
    """One clear message: what happened, where the log is, what to do.

    `message` is one sentence without the remedy; `str(error)` has all three parts, each on its own
    line, ready to print.

    >>> from rfe_helpers import errors
    >>> error = errors.RfeError("the disk is full", remedy="delete old composes")
    >>> print(error)
    the disk is full
    to do: delete old composes
    """

    def __init__(self, message: str, *, remedy: str = "", log: Path | None = None) -> None:
        self.message = message
        self.remedy = remedy
        self.log = log
        super().__init__(message)

    def __str__(self) -> str:
        lines = [self.message]
        if self.log is not None:
            lines.append(f"log: {self.log}")
        if self.remedy:
            lines.append(f"to do: {self.remedy}")
        return "\n".join(lines)

    @staticmethod
    def split(text: str) -> tuple[str, str]:
        """What `str(error)` of another process says, and its remedy, "" if it has none."""
        before, mark, after = text.rpartition("\nto do: ")
        return (before, after) if mark else (text, "")

    def _render_traceback_(self) -> list[str]:
        """What IPython shows instead of a traceback: the reader can act on these errors."""
        return f"{type(self).__name__}: {self}".splitlines()


class InputError(RfeError):
    """An argument of the caller is wrong; nothing was started.

    >>> from rfe_helpers import Deadline
    >>> Deadline.of("soon")
    Traceback (most recent call last):
        ...
    rfe_helpers.errors.InputError: 'soon' is neither a number of seconds nor a Deadline...
    """


class BlueprintError(InputError):
    """A blueprint that cannot be read or used.

    >>> from rfe_helpers.build import parse_toml
    >>> parse_toml('name = "edge')
    Traceback (most recent call last):
        ...
    rfe_helpers.errors.BlueprintError: ...
    """


class KickstartError(InputError):
    """A kickstart that does not parse; the message names the line."""


class ParameterError(InputError):
    """A notebook parameter that does not exist or does not fit."""


class ProfileError(InputError):
    """A profile that is unknown or malformed.

    >>> from rfe_helpers import errors
    >>> from rfe_helpers.lab import profile
    >>> try:
    ...     profile.load("rhel-7")
    ... except errors.ProfileError as error:
    ...     print(error.message)
    unknown profile 'rhel-7'
    """


class ToolMissingError(RfeError):
    """A command that this step needs is not installed."""


class CommandFailedError(RfeError):
    """A command exited with an error, was killed, or could not be started.

    `status` is the exit status, negative for a signal (as in subprocess); `tail` holds the
    last lines of its output.

    >>> from rfe_helpers import errors
    >>> from rfe_helpers.core import run
    >>> try:
    ...     run.run(["ls", "/nowhere"])
    ... except errors.CommandFailedError as error:
    ...     print(error.status, error.tail)
    2 ...ls: cannot access '/nowhere': No such file or directory
    """

    def __init__(
        self,
        argv: Sequence[str],
        status: int,
        tail: str,
        *,
        remedy: str = "",
        log: Path | None = None,
    ) -> None:
        self.argv = tuple(argv)
        self.status = status
        self.tail = tail
        ended = f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
        message = f"{self.argv[0]} {ended}"
        if tail:
            message += ":\n" + "\n".join("  " + line for line in tail.splitlines())
        super().__init__(message, remedy=remedy, log=log)


class DiskFullError(RfeError):
    """A disk is full; the message names the directory."""


class DeadlineExceededError(RfeError):
    """Something took longer than it was allowed to."""


class LabError(RfeError):
    """The lab directory cannot be used."""


class StepMissingError(LabError):
    """An earlier notebook has not been run in this lab."""


class BuilderError(RfeError):
    """The Image Builder cannot be reached or does not start."""


class ConnectionLostError(BuilderError):
    """No answer: the server exited, or closed the connection before it had answered."""


class ApiError(BuilderError):
    """The Image Builder answered with an error.

    `status` is the HTTP status, `id` and `msg` are the server's, `errors` are all entries of the
    answer as (id, msg).

    >>> from rfe_helpers import errors
    >>> try:
    ...     client.blueprint("unknown")
    ... except errors.ApiError as error:
    ...     print(error.id, error.msg)
    UnknownBlueprint ...
    """

    def __init__(self, status: int, errors: Sequence[tuple[str, str]], *, remedy: str = "") -> None:
        self.status = status
        self.errors = tuple(errors)
        self.id, self.msg = self.errors[0] if self.errors else ("HTTPError", f"HTTP {status}")
        text = "; ".join(f"{key}: {msg}" for key, msg in self.errors) or f"HTTP {status}"
        super().__init__(text, remedy=remedy)


class ComposeFailedError(BuilderError):
    """A compose failed. `stage` is the stage that failed, `tail` its last lines of output."""

    def __init__(
        self, compose: str, stage: str, tail: str, *, remedy: str = "", log: Path | None = None
    ) -> None:
        self.compose = compose
        self.stage = stage
        self.tail = tail
        message = f"compose {compose} failed" + (f" in stage {stage}" if stage else "")
        if tail:
            message += ":\n" + "\n".join("  " + line for line in tail.splitlines())
        super().__init__(message, remedy=remedy, log=log)


class CommitError(RfeError):
    """A commit, repository or archive that cannot be read."""


class ServeError(RfeError):
    """A repository cannot be published."""


class PodmanError(ServeError):
    """podman is not installed, or cannot run containers on this machine, whatever its settings."""


class MediaError(RfeError):
    """A boot ISO or an image that cannot be downloaded, read or made.

    >>> from pathlib import Path
    >>> from rfe_helpers import errors
    >>> from rfe_helpers.install import media
    >>> try:
    ...     media.read(Path("boot.iso"))
    ... except errors.MediaError as error:
    ...     print(error.message)
    boot.iso: No such file or directory
    """


class MachineError(RfeError):
    """A virtual machine does not start or does not answer.

    >>> from pathlib import Path
    >>> from rfe_helpers import errors
    >>> from rfe_helpers.machine import Machine, VmSpec
    >>> try:
    ...     Machine.start(lab, VmSpec("edge-9", disk=Path("missing.qcow2")))
    ... except errors.MachineError as error:
    ...     print(error.message)
    QEMU of edge-9 ended: ... Could not open 'missing.qcow2': No such file or directory
    """


class GuestPanicError(MachineError):
    """The kernel of a virtual machine panicked."""


class QemuCrashError(MachineError):
    """QEMU itself crashed."""


class NodeError(RfeError):
    """An installed system answered with something unexpected."""


class CheckFailedError(RfeError):
    """A notebook's check did not hold."""
