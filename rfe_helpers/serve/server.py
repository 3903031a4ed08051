"""The common part of with_podman and with_nginx."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from rfe_helpers.core.network import port_is_free
from rfe_helpers.core.progress import Say
from rfe_helpers.core.wait import Deadline
from rfe_helpers.errors import ServeError
from rfe_helpers.lab.lab import Lab


@dataclass(frozen=True)
class Content:
    """The content to serve in a lab: an artifact and kickstarts (name -> text), at a port."""

    lab: Lab
    artifact: Path
    kickstarts: Mapping[str, str]
    port: int
    deadline: Deadline
    say: Say


@dataclass(frozen=True)
class Server:
    """A running web server. `engine` is "podman" or "nginx"; `ca` is the path of the CA certificate
    of an HTTPS server; `check` raises ServeError once the server has ended."""

    engine: str
    check: Callable[[], None]
    container: str = ""
    ca: str = ""


def check_port(port: int) -> None:
    """Raise ServeError if the port is taken for longer than an ended server needs to free it."""
    limit = Deadline(3)
    while not port_is_free(port):
        if limit.expired:
            raise ServeError(
                f"port {port} is taken by another program",
                remedy="stop it (`ss -ltnp` lists what listens), or publish on another port",
            )
        time.sleep(0.1)
