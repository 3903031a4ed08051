import time

import pytest

from rfe_helpers.core.wait import Deadline, wait_for
from rfe_helpers.errors import DeadlineExceededError


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
