"""How long work tells what it is doing: one status line at a time.

A function that takes long has a parameter `on_progress: OnProgress = None`; whoever calls it gives
anything that takes a line of text, such as `workbook.Progress`, or `print`.
"""

from __future__ import annotations

from collections.abc import Callable

Say = Callable[[str], None]
OnProgress = Say | None


def say(on_progress: OnProgress) -> Say:
    """`on_progress`, or a function that drops the line if it is None."""
    return on_progress or (lambda line: None)
