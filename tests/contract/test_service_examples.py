"""The service against the examples of the wire, over a real socket."""

from __future__ import annotations

import io
import json
import tarfile
import tomllib
from typing import Any

import examples
import pytest
from examples import Example
from support.sandbox_service import Answer, Running, web_server
from world import HEADS, World, take

JSON_TYPE = "application/json; charset=utf-8"


@pytest.mark.parametrize("example", list(examples.for_service()), ids=str)
def test_the_service_answers_as_the_contract_says(example: Example, service: Running) -> None:
    with web_server(HEADS) as address:
        world = World(service, f"{address}/repo")
        for situation in example.given:
            world.bring_about(situation)
        world.remember_change()
        answer = service.ask(
            world.to_real(example.request), world.to_real(example.sent), example.content_type
        )
        check(example, answer, world)


def check(example: Example, answer: Answer, world: World) -> None:
    assert answer.status == example.status, answer.body
    for name, value in {"Content-Type": JSON_TYPE, **example.headers}.items():
        assert world.to_fixed(answer.headers.get(name, "")) == value, name
    if example.members is not None:
        with tarfile.open(fileobj=io.BytesIO(answer.body)) as archive:
            names = [world.to_fixed(member.name) for member in archive.getmembers()]
            assert all(member.isfile() for member in archive.getmembers())
        assert names == list(example.members)
        return
    body = world.to_fixed(answer.body.decode())
    if example.text is not None:
        assert body == example.text
    elif example.toml is not None:
        assert tomllib.loads(body) == tomllib.loads(example.toml)
    else:
        assert example.json is not None
        expected, actual = json.loads(example.json), json.loads(body)
        for pointer in example.vary:
            assert type(take(expected, pointer)) is type(take(actual, pointer)), pointer
        for pointer in example.starts:
            assert take(actual, pointer).startswith(take(expected, pointer)), actual
        for pointer in example.starts + example.vary:
            put(actual, pointer, take(expected, pointer))
        assert actual == expected


def put(value: Any, pointer: str, new: Any) -> None:
    parent, _, last = pointer.rpartition("/")
    holder = take(value, parent) if parent else value
    holder[int(last) if isinstance(holder, list) else last] = new
