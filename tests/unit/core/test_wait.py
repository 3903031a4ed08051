import time

import pytest

from rfe_helpers.core import run
from rfe_helpers.core.wait import Deadline, wait_for
from rfe_helpers.errors import DeadlineExceededError, InputError


def test_a_deadline_counts_down_and_never_below_zero():
    deadline = Deadline(0.05)
    assert 0 < deadline.left <= 0.05
    assert not deadline.expired
    time.sleep(0.06)
    assert deadline.left == 0
    assert deadline.expired
    assert deadline.elapsed >= 0.06


def test_check_says_what_did_not_happen_and_what_to_do():
    with pytest.raises(DeadlineExceededError) as caught:
        Deadline(0).check("the machine answers", remedy="look at its console")
    assert str(caught.value) == ("the machine answers: not within 0 s\nto do: look at its console")


def test_seconds_are_a_deadline():
    deadline = Deadline(7)
    assert Deadline.of(deadline) is deadline
    assert Deadline.of(5).seconds == 5
    assert Deadline.of(0.5, 9).seconds == 0.5
    assert Deadline.of(0).expired
    assert Deadline.of(None).seconds == 600
    assert Deadline.of(None, 9).seconds == 9
    assert Deadline.of(float("inf")).left == float("inf")


@pytest.mark.parametrize("limit", ["600", True, -1, float("nan"), [1]])
def test_what_is_not_a_number_of_seconds_is_refused(limit):
    with pytest.raises(InputError, match="neither a number of seconds nor a Deadline"):
        Deadline.of(limit)


def test_waiting_and_commands_take_seconds():
    assert wait_for(lambda: "there", 5, "it") == "there"
    for late in (
        lambda: wait_for(lambda: None, 0.05, "it", every=0.01),
        lambda: run.run(["sleep", "5"], deadline=0.1),
    ):
        began = time.monotonic()
        with pytest.raises(DeadlineExceededError):
            late()
        assert time.monotonic() - began < 2


def test_wait_for_returns_what_the_probe_found():
    answers = iter([None, 0, "", "yes"])
    assert wait_for(lambda: next(answers), Deadline(5), "an answer", every=0.001) == "yes"


def test_wait_for_gives_up_in_time():
    began = time.monotonic()
    with pytest.raises(DeadlineExceededError, match="an answer: not within"):
        wait_for(lambda: None, Deadline(0.1), "an answer", every=5)
    assert time.monotonic() - began < 1


def test_wait_for_probes_at_least_once_even_when_time_is_up():
    assert wait_for(lambda: "there", Deadline(0), "it") == "there"


def test_what_the_probe_raises_passes_through():
    with pytest.raises(KeyError):
        wait_for(lambda: {}["x"], Deadline(5), "it")
