import os
import signal

import pytest

from rfe_helpers.core import signals

NUMBERS = (signal.SIGINT, signal.SIGTERM)


def test_only_the_first_signal_interrupts_and_handlers_are_as_they_were():
    ended = []

    def work():
        with signals.ending_once():
            try:
                os.kill(os.getpid(), signal.SIGTERM)
            finally:
                for number in NUMBERS:
                    os.kill(os.getpid(), number)
                    ended.append(number)

    # What runs in the background of a shell ignores Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with signals.ending_in_order():
            handlers = [signal.getsignal(number) for number in NUMBERS]
            with pytest.raises(KeyboardInterrupt):
                work()
            assert [signal.getsignal(number) for number in NUMBERS] == handlers
    finally:
        signal.signal(signal.SIGINT, before)
    assert ended == [*NUMBERS]
