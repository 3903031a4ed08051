"""The trainer's page without JupyterHub, over labs of this machine, as its browser asks for it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests
from support.rooms import act, watched

from rfe_helpers.core import journal
from rfe_helpers.core.wait import Deadline, wait_for
from rfe_helpers.lab.lab import Lab
from rfe_helpers.workbook import activity

RFE = Path(sys.executable).parent / "rfe"


@dataclass
class Page:
    """The page, and the labs that it shows."""

    address: str
    token: str
    labs: Path

    def session(self) -> requests.Session:
        """One that has opened the address with its token."""
        session = requests.Session()
        assert session.get(f"{self.address}/?token={self.token}", timeout=20).status_code == 200
        return session


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    labs = tmp_path_factory.mktemp("labs")
    for name in ("anna", "ben"):
        Lab(labs / name)
    (labs / "notes").mkdir()
    (labs / "link").symlink_to("anna")
    (labs / "pipe").mkdir()
    os.mkfifo(labs / "pipe/lab.json")
    with watched(RFE, labs.parent / "watch.log", "--labs", labs) as (address, token):
        yield Page(address, token, labs)
    journal.open_journal(None)


def test_each_lab_is_a_row_with_what_was_done(page: Page) -> None:
    activity.record(page.labs / "anna", "20", "failed", error="no repository has <b>hotp</b>")
    activity.raise_hand(page.labs / "ben", "help")
    time.sleep(2.1)  # as long as rows are kept
    rows = page.session().get(f"{page.address}/state", timeout=20).json()["rows"]
    assert [row["name"] for row in rows] == ["anna", "ben", "pipe"]
    assert rows[0]["activity"]["notebooks"]["20"]["status"] == "failing"
    assert rows[1]["activity"]["hand"] == "help"


@pytest.mark.parametrize("path", ["/", "/state", "/?token=wrong", "/static/../room.py"])
def test_nobody_without_the_token_sees_it(page: Page, path: str) -> None:
    answer = requests.get(page.address + path, timeout=20)
    assert answer.status_code in (403, 404)
    assert page.token not in answer.text


def test_a_lab_is_reset_from_the_page(page: Page) -> None:
    lab = Lab(page.labs / "anna")
    lab.record("commit", commit="0" * 64)
    answer = act(page.address, page.session(), {"seat": "anna", "action": "reset", "number": "20"})
    assert answer.status_code == 200, answer.text
    wait_for(lambda: not lab.has("commit"), Deadline(60), "the reset is done")


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        ({"seat": "nobody", "action": "reset", "number": "20"}, 409),
        ({"seat": "../anna", "action": "reset", "number": "20"}, 409),
        ({"seat": "anna", "action": "delete", "number": "20"}, 400),
        ({"seat": "anna", "action": "solve", "number": "2; rm"}, 400),
        ({"seat": "anna", "action": "lower"}, 409),
        ({}, 400),
        ([], 400),
    ],
)
def test_what_cannot_be_done_is_refused(page: Page, asked: object, status: int) -> None:
    assert act(page.address, page.session(), asked).status_code == status


def test_a_request_from_another_site_is_refused(page: Page) -> None:
    session = page.session()
    asked = {"seat": "anna", "action": "reset", "number": "20"}
    assert session.post(f"{page.address}/act", json=asked, timeout=20).status_code == 403


def test_a_directory_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    argv = [RFE, "room", "watch", "--labs", tmp_path / "gone"]
    result = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert result.returncode == 1
    assert result.stderr.startswith("rfe: cannot read")
