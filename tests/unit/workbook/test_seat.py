"""What a trainer asks of a seat's Jupyter server."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import requests
from support.jupyter_server import TOKEN, serving

from rfe_helpers.core import journal
from rfe_helpers.core.wait import Deadline, wait_for
from rfe_helpers.lab.lab import Lab
from rfe_helpers.workbook import activity, seat

HEADER = {"Authorization": f"token {TOKEN}"}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    yield Lab(tmp_path_factory.mktemp("seat") / "lab")
    journal.open_journal(None)


@pytest.fixture(scope="module")
def address(lab: Lab) -> Iterator[str]:
    with serving(lab.directory, lab.directory.parent / "home") as server:
        yield f"http://{server}/rfe/seat"


def test_it_says_how_far_the_lab_is(lab: Lab, address: str) -> None:
    activity.record(lab.directory, "20", "failed", error="no repository has hotp")
    answer = requests.get(address, headers=HEADER, timeout=20)
    seen = activity.decode(answer.content)
    here = activity.of(lab.directory)
    assert replace(seen, disk_free=0) == replace(here, disk_free=0)  # other tests write, too
    assert 0 < seen.disk_free < seen.disk_size == here.disk_size
    assert seen.notebooks["20"].error == "no repository has hotp"


def test_a_hand_is_raised_and_lowered(lab: Lab, address: str) -> None:
    for up, words in ((True, "help <b>me</b>"), (False, None)):
        said = {"up": up, "words": words or ""}
        answer = requests.post(f"{address}/hand", json=said, headers=HEADER, timeout=20)
        assert answer.json() == {"up": up}
        assert activity.of(lab.directory).hand == words


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"{", b"\xff", b"7"])
def test_a_request_that_is_something_else_is_refused(address: str, body: bytes) -> None:
    answer = requests.post(f"{address}/hand", data=body, headers=HEADER, timeout=20)
    assert answer.status_code == 400


@pytest.mark.parametrize(
    ("method", "path"), [("GET", ""), ("POST", "/hand"), ("POST", "/reset/20")]
)
def test_nobody_without_the_token_gets_in(address: str, method: str, path: str) -> None:
    answer = requests.request(method, address + path, timeout=20, allow_redirects=False)
    assert answer.status_code in (302, 403)


def test_a_reset_runs_in_the_lab(lab: Lab, address: str) -> None:
    lab.record("commit", commit="0" * 64)
    answer = requests.post(f"{address}/reset/20", headers=HEADER, timeout=20)
    assert answer.status_code == 200
    wait_for(lambda: not lab.has("commit"), Deadline(60), "the commit's result is forgotten")
    wait_for(lambda: lab.process(seat.PROCESS) is None, Deadline(60), "the reset has ended")


@pytest.mark.parametrize("path", ["/solve/2", "/solve/../20", "/delete/20", "/solve/2000"])
def test_only_notebooks_are_solved(address: str, path: str) -> None:
    answer = requests.post(address + path, headers=HEADER, timeout=20)
    assert answer.status_code == 404
