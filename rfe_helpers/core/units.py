"""Numbers as people read them."""

from __future__ import annotations


def elapsed(seconds: float) -> str:
    """A duration in seconds as text: 0:07, 12:30, 1:02:03.

    >>> from rfe_helpers.core import elapsed
    >>> elapsed(3723)
    '1:02:03'
    """
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def size(number: float) -> str:
    """A number of bytes as text: 312 B, 4.2 kB, 158.0 MB (powers of 1000).

    >>> from rfe_helpers.core import size
    >>> size(158_000_000)
    '158.0 MB'
    """
    for unit in ("B", "kB", "MB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} GB"
