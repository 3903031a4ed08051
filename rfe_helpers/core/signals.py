"""What Ctrl-C and the signals that end a program do within a block of the main thread."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn


@contextmanager
def noting_interrupts(noted: list[int]) -> Iterator[None]:
    """Defer Ctrl-C while a process is being started, which would otherwise be left behind."""
    handled = [n for n in (signal.SIGINT, signal.SIGTERM) if callable(signal.getsignal(n))]
    with _handling(handled, lambda number, _: noted.append(number)):
        yield


@contextmanager
def ending_in_order() -> Iterator[None]:
    """Within the block SIGTERM raises KeyboardInterrupt, as Ctrl-C does: processes are ended and
    unfinished files removed. So does SIGHUP, of a terminal that is closed, unless it is ignored, as
    under nohup. For the command lines."""

    def interrupt(number: int, _: object) -> NoReturn:
        raise KeyboardInterrupt

    ends = [signal.SIGTERM, signal.SIGHUP]
    with _handling([n for n in ends if signal.getsignal(n) is not signal.SIG_IGN], interrupt):
        yield


@contextmanager
def ending_once() -> Iterator[None]:
    """Within the block only the first Ctrl-C, SIGTERM or SIGHUP raises KeyboardInterrupt. Those
    after it are ignored, so that what the first has begun to end is ended. For use within
    `ending_in_order`; a signal that Python does not handle there keeps its meaning."""
    noted: list[int] = []

    def interrupt(number: int, _: object) -> None:
        noted.append(number)
        if len(noted) == 1:
            raise KeyboardInterrupt

    ends = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    with _handling([n for n in ends if callable(signal.getsignal(n))], interrupt):
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
