"""Deadlines: one is made at the top and handed down to everything below it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from rfe_helpers.errors import DeadlineExceededError

T = TypeVar("T")


class Deadline:
    """A moment, `seconds` from now, at which to stop waiting."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._started = time.monotonic()

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
        """Raise DeadlineExceededError if the time is up; `what` completes "… did not happen"."""
        if self.expired:
            raise DeadlineExceededError(f"{what}: not within {self.seconds:.0f} s", remedy=remedy)


def wait_for(
    probe: Callable[[], T | None],
    deadline: Deadline,
    what: str,
    *,
    every: float = 0.5,
    remedy: str = "",
) -> T:
    """Call `probe` every `every` seconds until it returns something true, and return that.

    Raises DeadlineExceededError with `what` ("the machine answers over SSH") when time is up;
    what `probe` raises passes through.
    """
    while True:
        found = probe()
        if found:
            return found
        deadline.check(what, remedy=remedy)
        time.sleep(min(every, deadline.left))
