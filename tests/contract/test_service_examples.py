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

SITUATIONS = examples.situations()
NAMES: dict[str, str] = SITUATIONS["names"]
JSON_TYPE = "application/json; charset=utf-8"


class World:
    """The situations that examples presuppose; knows which real name stands for which fixed."""

    def __init__(self, service: Running, repository: str) -> None:
        self.service = service
        self.real = {NAMES["repository"]: repository}

    def bring_about(self, situation: str) -> None:
        state = SITUATIONS[situation]
        for step in state.get("post", []):
            answer = self.service.ask(
                f"POST {step['path']}", step.get("sent", ""), step.get("content_type", "")
            )
            assert answer.status == 200, answer.body
        if "compose" in state:
            self.real[NAMES["compose"]] = self._compose(state["compose"])

    def _compose(self, state: str) -> str:
        if state.startswith("test="):
            return self.service.compose(query=f"?{state}")
        if state == "WAITING":
            self.service.wait(self.service.compose(), "RUNNING")
            return self.service.compose()
        if state in ("FINISHED", "FAILED"):
            self.service.builder.open("finish" if state == "FINISHED" else "fail")
        identity = self.service.compose()
        self.service.wait(identity, state)
        return identity

    def remember_change(self) -> None:
        """The fixed name of a commit of a blueprint stands for the oldest one of Edge."""
        answer = self.service.ask("GET /api/v1/blueprints/changes/Edge").json
        if answer["blueprints"]:
            oldest = answer["blueprints"][0]["changes"][-1]["commit"]
            self.real[NAMES["change"]] = oldest

    def to_real(self, text: str) -> str:
        for fixed, real in self.real.items():
            text = text.replace(fixed, real)
        return text

    def to_fixed(self, text: str) -> str:
        for fixed, real in self.real.items():
            text = text.replace(real, fixed)
        return text


@pytest.mark.parametrize("example", list(examples.for_service()), ids=str)
def test_the_service_answers_as_the_contract_says(example: Example, service: Running) -> None:
    heads = {"/repo/refs/heads/debian/13/x86_64/edge": NAMES["parent"].encode() + b"\n"}
    with web_server(heads) as address:
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
            here, there = take(expected, pointer), take(actual, pointer)
            assert type(here) is type(there), pointer
        for pointer in example.starts:
            assert take(actual, pointer).startswith(take(expected, pointer)), actual
        for pointer in example.starts + example.vary:
            put(actual, pointer, take(expected, pointer))
        assert actual == expected


def take(value: Any, pointer: str) -> Any:
    for step in pointer.strip("/").split("/"):
        value = value[int(step)] if isinstance(value, list) else value[step]
    return value


def put(value: Any, pointer: str, new: Any) -> None:
    parent, _, last = pointer.rpartition("/")
    holder = take(value, parent) if parent else value
    holder[int(last) if isinstance(holder, list) else last] = new
