"""A room as its people and its trainer's page use it, without a browser."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests

from rfe_helpers.core.network import free_port
from rfe_helpers.core.wait import Deadline, wait_for
from rfe_helpers.room import Room

_CARD = re.compile(r"<dt>Name</dt><dd><code>(.+?)</code>.*?<dd><code>(\S+?)</code>", re.DOTALL)


def passwords(room: Room) -> dict[str, str]:
    """name -> password, of the cards."""
    return dict(_CARD.findall(room.cards.read_text()))


def authority(room: Room) -> str:
    """The certificate of who signed the room's."""
    return str(next((room.directory / "tls").glob("*/ca.pem")))


def seat_header(room: Room, name: str) -> dict[str, str]:
    """What opens one seat's server, as the trainer's page gets it from the hub."""
    answer = requests.post(
        f"http://127.0.0.1:{room.port('hub')}/hub/api/users/{name}/tokens",
        json={"scopes": [f"access:servers!user={name}"], "expires_in": 7200},
        headers={"Authorization": f"token {room.secrets['page']}"},
        timeout=30,
    )
    answer.raise_for_status()
    return {"Authorization": f"token {answer.json()['token']}"}


def log_in(room: Room, name: str, password: str) -> None:
    """Fill in the form, and wait for the server that it starts."""
    session = requests.Session()
    session.verify, session.trust_env = authority(room), False
    page = session.get(f"{room.address}hub/login", timeout=60)
    token: Any = re.search(r'name="_xsrf" value="([^"]+)"', page.text)
    form = {"username": name, "password": password, "_xsrf": token[1]}
    session.post(f"{room.address}hub/login?next=%2Fhub%2Fspawn", data=form, timeout=120)
    header = seat_header(room, name)
    wait_for(
        lambda: ask_seat(room, name, header).status_code == 200,
        Deadline(300),
        f"{name} has a server",
        every=0.5,
    )


def ask_seat(room: Room, name: str, header: dict[str, str]) -> requests.Response:
    """How far a seat is, from its server."""
    url = f"{room.address}user/{name}/rfe/seat"
    return requests.get(
        url, headers=header, verify=authority(room), timeout=60, allow_redirects=False
    )


@contextmanager
def watched(rfe: Path, log: Path, *words: str | Path) -> Iterator[tuple[str, str]]:
    """The trainer's page as `rfe room watch` serves it: its address and token."""
    port = free_port()
    with log.open("wb") as file:
        command = [rfe, "room", "watch", "--port", str(port), *words]
        process = subprocess.Popen(command, stdout=file, stderr=file)
    try:
        said = wait_for(
            lambda: re.search(r"(http://\S+)/\?token=(\w+)", log.read_text()),
            Deadline(60),
            "the page's address is said",
        )
        yield said[1], said[2]
    finally:
        process.terminate()
        process.wait(20)


def act(address: str, session: requests.Session, asked: object) -> requests.Response:
    """Ask a page for something, as its script does."""
    text = session.get(f"{address}/", timeout=20).text
    token: Any = re.search(r'name="xsrf" content="([^"]+)"', text)
    header = {"X-XSRFToken": token[1]}
    return session.post(f"{address}/act", json=asked, headers=header, timeout=60)
