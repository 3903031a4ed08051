"""The requests of composer-cli and of the web console's page, each against the service: the answer
has the status and the fields that the client reads, of the types that it decodes."""

from __future__ import annotations

import io
import json
import re
import shlex
import subprocess
import tarfile
import tomllib
from email.message import Message
from pathlib import Path

import actions
import msgspec
import pytest
from actions import Action, Client, Exchange
from support.sandbox_service import ARTIFACT, Answer, Running, web_server
from world import HEADS, World, take

from rfe_helpers.sandbox.service.app import ROUTES

PAGE = (Path(__file__).parents[2] / "docs/clients.md").read_text()
# Uploads, which no client of today asks for, and spellings of a path that none uses.
_UNUSED = re.compile(r"/compose/uploads/|/upload/|/projects/list/|/(projects|modules)/[a-z]+$")


@pytest.mark.parametrize("action", actions.actions(), ids=str)
def test_the_service_gives_a_client_what_it_reads(action: Action, service: Running) -> None:
    with web_server(HEADS) as address:
        world = World(service, f"{address}/repo")
        for situation in action.given:
            world.bring_about(situation)
        world.remember_change()
        for exchange in action.exchanges:
            answer = service.ask(
                world.to_real(exchange.request), world.to_real(exchange.sent), exchange.content_type
            )
            check(action.client, exchange, answer, world)


def check(client: Client, exchange: Exchange, answer: Answer, world: World) -> None:
    assert answer.status == exchange.status, answer.body
    if exchange.filename:
        header = Message()
        header["Content-Disposition"] = answer.headers["Content-Disposition"]
        assert world.to_fixed(header.get_filename() or "") == exchange.filename
    text = "" if exchange.format in ("tar", "image") else answer.body.decode()
    match exchange.format:
        case "image":
            assert answer.body == ARTIFACT
        case "tar":
            with tarfile.open(fileobj=io.BytesIO(answer.body)) as archive:
                assert archive.getmembers()
        case "text":
            assert text.strip()
            assert not text.startswith("{")
        case _:
            toml = exchange.format == "toml"
            decode = msgspec.toml.decode if toml else msgspec.json.decode
            decode(answer.body, type=client.decoder(exchange.reads))
            value = tomllib.loads(text) if toml else json.loads(text)
            assert {key: take(value, key) for key in exchange.has} == exchange.has
            for pointer, fixed in exchange.keep.items():
                world.real[fixed] = take(value, pointer)
    if exchange.without_null:
        assert "null" not in text


@pytest.mark.parametrize("client", actions.clients(), ids=lambda client: client.name)
def test_every_command_of_a_client_is_tried(client: Client) -> None:
    tried = {
        covered
        for action in actions.actions()
        if action.client.name == client.name
        for covered in action.covers or (action.command,)
    }
    assert tried == set(client.commands)


def test_every_route_that_a_client_uses_is_tried() -> None:
    requests = {
        exchange.request.partition("?")[0]
        for action in actions.actions()
        for exchange in action.exchanges
    }
    untried = []
    for route in ROUTES:
        pattern = re.sub(r"\{[a-z]+(:path)?\}", "[^/]+", route.path)
        path = re.compile(f"{route.method} /api/v[01]{pattern}")
        if not _UNUSED.search(route.path) and not any(map(path.fullmatch, requests)):
            untried.append(f"{route.method} {route.path}")
    assert untried == []


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        pytest.param("uint", b'{"value": "1"}', id="a text where a number stands"),
        pytest.param("uint", b'{"value": -1}', id="a negative number"),
        pytest.param("int", b'{"value": 1.5}', id="a fraction"),
        pytest.param("text", b'{"value": null}', id="null for what the client needs"),
        pytest.param("text", b"{}", id="a missing field"),
        pytest.param("[text]", b'{"value": []}', id="an empty list"),
        pytest.param("[error]*", b'{"value": [{"id": "X"}]}', id="a missing field inside"),
        pytest.param("{object}", b'{"value": {"extra": 1}}', id="a number for an object"),
    ],
)
def test_a_wrong_answer_is_noticed(kind: str, body: bytes) -> None:
    client = actions.clients()[0]
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(body, type=client.decoder({"value": kind}))


def test_the_page_for_readers_names_commands_that_there_are() -> None:
    table = PAGE.partition("| `composer-cli --socket SOCKET …` |")[2].partition("\n\n")[0]
    named = {" ".join(shlex.split(line)[:2]) for line in re.findall(r"^\| `(.+?)` \|", table, re.M)}
    assert {"blueprints push", "compose start-ostree", "compose image"} <= named
    assert named <= set(actions.clients()[0].commands)


def test_the_requests_of_the_page_for_readers_work(service: Running) -> None:
    (block,) = (text for text in re.findall(r"```sh\n(.*?)```", PAGE, re.S) if "curl" in text)
    first, lines = block.split("\n", 1)
    assert first == "socket=$HOME/rfe-lab/sockets/image-builder.sock"
    result = subprocess.run(
        ["bash", "-euc", f"socket={service.socket}\n{lines}"], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    answers = [json.loads(text) for text in re.sub(r"\}\{", "}\n{", result.stdout).splitlines()]
    assert answers[0] == {"status": True}
    assert answers[1]["errors"] == []
    (running,) = answers[3]["new"] + answers[3]["run"]
    assert running["id"] == answers[2]["build_id"]
    assert running["compose_type"] == "edge-container"
