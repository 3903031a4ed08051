"""Deadlines: the caller makes one and hands it down to everything that it calls."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from rfe_helpers.errors import DeadlineExceededError, InputError

T = TypeVar("T")


class Deadline:
    """A moment, `seconds` from now, at which to stop waiting.

    >>> from rfe_helpers.core import Deadline, run, wait_for
    >>> deadline = Deadline(600)  # both steps together may take ten minutes
    >>> run.run(["ostree", "--version"], deadline=deadline).status
    0
    >>> wait_for(lambda: run.which("ostree"), deadline, "ostree is installed")
    PosixPath('...ostree')

    Where a function takes a deadline, a number of seconds from now does as well.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._started = time.monotonic()

    @classmethod
    def of(cls, limit: Deadline | float | None, default: float = 600) -> Deadline:
        """A deadline as it is, or one so many seconds from now; None stands for `default`.

        Raises InputError for anything else.
        """
        if isinstance(limit, Deadline):
            return limit
        seconds = default if limit is None else limit
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds >= 0:
            raise InputError(
                f"{limit!r} is neither a number of seconds nor a Deadline",
                remedy="give seconds, such as 600, or Deadline(600)",
            )
        return cls(seconds)

    @property
    def elapsed(self) -> float:
        """Seconds since the deadline was made."""
        return time.monotonic() - self._started

    @property
    def left(self) -> float:
        """Seconds left, never below 0."""
        return max(0.0, self.seconds - self.elapsed)

    @property
    def expired(self) -> bool:
        return self.left <= 0

    def check(self, what: str, *, remedy: str = "") -> None:
        """Raise DeadlineExceededError if time is up; `what` should have happened by then."""
        if self.expired:
            raise DeadlineExceededError(f"{what}: not within {self.seconds:.0f} s", remedy=remedy)


def wait_for(
    probe: Callable[[], T | None],
    deadline: Deadline | float,
    what: str,
    *,
    every: float = 0.5,
    remedy: str = "",
) -> T:
    """Call `probe` every `every` seconds until it returns something true, and return that.

    Raises DeadlineExceededError with `what` ("the machine answers over SSH") when time is up;
    exceptions of `probe` are passed on.

    >>> from pathlib import Path
    >>> from rfe_helpers.core import files, wait_for
    >>> files.write(Path("ready"), "yes")
    >>> wait_for(Path("ready").exists, 60, "the file is there")
    True
    """
    limit = Deadline.of(deadline)
    while True:
        value = probe()
        if value:
            return value
        limit.check(what, remedy=remedy)
        time.sleep(min(every, limit.left))
