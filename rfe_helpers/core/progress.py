"""How a long task reports what it is doing: one status line at a time.

A function that may take long has a parameter `on_progress: OnProgress = None`. It is called with
each line: `workbook.Progress`, `print` and every other function of one string will do.
"""

from __future__ import annotations

from collections.abc import Callable

Say = Callable[[str], None]
OnProgress = Say | None


def say(on_progress: OnProgress) -> Say:
    """`on_progress`, or a function that drops the line if it is None."""
    return on_progress or (lambda line: None)
