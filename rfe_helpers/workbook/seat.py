"""What a trainer asks of a person's Jupyter server: how far they are, and to help them.

The workbook's extension of the server (workbook/server.py) adds to its address, behind its login:

    GET   rfe/seat                     Activity.to_json of the lab (workbook/activity.py)
    POST  rfe/seat/hand                {"up": true, "words": "it does not boot"}
    POST  rfe/seat/solve/NN, reset/NN  runs `rfe solve NN` or `rfe lab reset NN` in the lab; its
                                       output goes to logs/trainer.log
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

from jupyter_server.auth.decorator import authorized
from jupyter_server.base.handlers import JupyterHandler
from jupyter_server.utils import url_path_join
from tornado import web

from rfe_helpers.core import run
from rfe_helpers.lab.lab import Lab
from rfe_helpers.workbook import activity

PROCESS = "trainer"  # the name of what a trainer runs, in the lab
_COMMANDS = {"solve": ["solve"], "reset": ["lab", "reset"]}
_LONGEST_REQUEST = 10_000


def helping(action: str, number: str, lab: Path) -> list[str]:
    """The command that helps somebody: `rfe solve` or `rfe lab reset` of a notebook in a lab."""
    rfe = [sys.executable, "-m", "rfe_helpers.cli"]
    return [*rfe, *_COMMANDS[action], number, "--lab", str(lab)]


class _Handler(JupyterHandler):
    auth_resource = "contents"

    @property
    def lab(self) -> Lab:
        lab: Lab = self.settings["rfe_lab"]
        return lab

    def answer(self, value: object) -> None:
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps(value))


class SeatState(_Handler):
    """How far the lab is."""

    @web.authenticated
    @authorized
    async def get(self) -> None:
        seen = await asyncio.to_thread(activity.of, self.lab.directory)
        self.answer(seen.to_json())


class Hand(_Handler):
    """Up or down."""

    @web.authenticated
    @authorized
    def post(self) -> None:
        try:
            asked = json.loads(self.request.body[:_LONGEST_REQUEST])
            up, words = bool(asked["up"]), str(asked.get("words", ""))
        except (ValueError, LookupError, TypeError, AttributeError):
            raise web.HTTPError(400, 'say {"up": true} or {"up": false}') from None
        if up:
            activity.raise_hand(self.lab.directory, words)
        else:
            activity.lower_hand(self.lab.directory)
        self.answer({"up": up})


class Help(_Handler):
    """Solve or reset a notebook for this person."""

    @web.authenticated
    @authorized
    def post(self, action: str, number: str) -> None:
        if self.lab.process(PROCESS) is not None:
            raise web.HTTPError(409, "the trainer's last command still runs in this lab")
        process = run.start(
            helping(action, number, self.lab.directory),
            log=self.lab.log(PROCESS),
            env=dict(os.environ),
            on_start=lambda process: self.lab.add_process(PROCESS, process),
        )
        self.answer({"pid": process.pid, "log": str(self.lab.log(PROCESS))})


def handlers(base_url: str) -> list[tuple[Any, ...]]:
    """The routes, for tornado."""
    seat = url_path_join(base_url, "rfe/seat")
    return [
        (seat, SeatState),
        (f"{seat}/hand", Hand),
        (rf"{seat}/(solve|reset)/(\d\d\d?)", Help),
    ]
