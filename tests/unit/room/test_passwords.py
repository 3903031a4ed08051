"""Passwords and cards."""

import asyncio
import threading
import time
from html.parser import HTMLParser
from types import SimpleNamespace

import pytest

from rfe_helpers.room import passwords
from rfe_helpers.room.authenticator import SeatAuthenticator


def test_a_password_is_easy_to_type_and_only_its_hash_is_kept():
    password = passwords.new_password()
    assert len(password) == 14
    assert not set(password) & set("0oil1O")
    known = passwords.hash_of(password)
    assert password not in known
    assert passwords.matches(password, known)
    assert passwords.matches(f" {password.upper()} ", known)
    assert not passwords.matches(passwords.new_password(), known)
    assert known != passwords.hash_of(password)


def test_a_card_has_what_its_person_types():
    class Text(HTMLParser):
        found = ""

        def handle_data(self, data):
            self.found += data

    page = passwords.cards("https://room:8443/", {"anna": "abcd-efgh-jkmn", "<b>": "x&y"})
    text = Text()
    text.feed(page)
    for word in ("https://room:8443/", "anna", "abcd-efgh-jkmn", "<b>", "x&y"):
        assert word in text.found
    assert page.count("<section ") == 2
    again = passwords.cards("https://room:8443/", {"anna": "new1-new2-new3", "ben": "x"}, page)
    assert again.count("<section ") == 3
    assert "new1-new2-new3" in again
    assert "abcd-efgh-jkmn" not in again


@pytest.fixture
def door():
    known = {"anna": passwords.hash_of("right")}
    return SeatAuthenticator(hashes=lambda: known)


def log_in(door, name, password, address="10.0.0.1"):
    # What the proxy adds comes last.
    headers = {"X-Forwarded-For": f"10.9.9.{time.monotonic_ns() % 250}, {address}"}
    handler = SimpleNamespace(request=SimpleNamespace(headers=headers))
    return door.authenticate(handler, {"username": name, "password": password})


@pytest.mark.parametrize(
    ("name", "password", "user"),
    [("anna", "right", "anna"), (" Anna ", "right", "anna"), ("anna", "wrong", None),
     ("ben", "right", None), ("", "", None), ("anna", "", None), ("x" * 10**6, "right", None)],
)  # fmt: skip
def test_only_the_right_password_opens(door, name, password, user):
    assert asyncio.run(log_in(door, name, password)) == user


def test_wrong_passwords_are_slowed_down_where_they_come_from(door, monkeypatch):
    waits = []
    thread = threading.get_ident()  # servers of other tests may wait in theirs

    async def sleep(seconds):
        if threading.get_ident() == thread:
            waits.append(seconds)

    monkeypatch.setattr("rfe_helpers.room.authenticator.asyncio.sleep", sleep)

    async def attempts():
        for _ in range(12):
            assert await log_in(door, "anna", "wrong") is None
        guessed = waits.copy()
        assert await log_in(door, "anna", "right", address="10.0.0.2") == "anna"
        return guessed, waits[-1]

    guessed, own = asyncio.run(attempts())
    assert guessed[0] == 0
    assert guessed[1:5] == pytest.approx([1, 2, 4, 8], abs=1)
    assert max(guessed) == pytest.approx(30, abs=1)
    assert own == 0


def test_many_attempts_at_once_are_not_looked_at(door):
    async def attempts():
        began = time.monotonic()
        await log_in(door, "anna", "wrong")
        results = await asyncio.gather(*(log_in(door, "anna", "wrong") for _ in range(50)))
        return results, time.monotonic() - began

    results, seconds = asyncio.run(attempts())
    assert results == [None] * 50
    assert seconds < 20
