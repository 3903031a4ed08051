"""The situations that examples presuppose, set up in a running service."""

from __future__ import annotations

from typing import Any

import examples
from support.sandbox_service import Running

SITUATIONS = examples.situations()
NAMES: dict[str, str] = SITUATIONS["names"]
HEADS = {"/repo/refs/heads/debian/13/x86_64/edge": NAMES["parent"].encode() + b"\n"}


class World:
    """Sets up the situations that examples presuppose, and maps their fixed names to real ones."""

    def __init__(self, service: Running, repository: str) -> None:
        self.service = service
        debian = service.service.index.system_sources().split()[2]
        self.real = {NAMES["repository"]: repository, NAMES["debian"]: debian}

    def bring_about(self, situation: str) -> None:
        setup = SITUATIONS[situation]
        for step in setup.get("post", []):
            answer = self.service.ask(
                f"POST {step['path']}", step.get("sent", ""), step.get("content_type", "")
            )
            assert answer.status == 200, answer.body
        if "compose" in setup:
            self.real[NAMES["compose"]] = self._compose(setup["compose"])

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
        """Let the fixed name of a blueprint's commit stand for the oldest commit of Edge."""
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


def take(value: Any, pointer: str) -> Any:
    """The value that a JSON pointer names."""
    for step in pointer.strip("/").split("/"):
        value = value[int(step)] if isinstance(value, list) else value[step]
    return value
