"""The workbook's extension of a Jupyter server, behind its login: the pages of machines
(workbook/machine_page.py), and what a trainer asks of a seat (workbook/seat.py).

`rfe lab open` and the seats of a room load it (jupyter_settings/jupyter_server_config.d).
"""

from __future__ import annotations

import os

from jupyter_server.serverapp import ServerApp
from jupyter_server.utils import url_path_join

from rfe_helpers.lab.lab import Lab
from rfe_helpers.workbook import machine_page, seat
from rfe_helpers.workbook.jupyter import MACHINE_PAGES


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    """jupyter_server asks a module for this."""
    return [{"module": __name__}]


def _load_jupyter_server_extension(server: ServerApp) -> None:
    """Add the addresses to a server whose lab is RFE_LAB, and tell its kernels of the pages."""
    directory = os.environ.get("RFE_LAB")
    if not directory:
        return
    server.web_app.settings.update(rfe_lab=Lab(directory), rfe_keyboards={})
    routes = machine_page.handlers(server.base_url) + seat.handlers(server.base_url)
    server.web_app.add_handlers(".*$", routes)  # type: ignore[no-untyped-call]
    os.environ[MACHINE_PAGES] = url_path_join(server.base_url, "rfe/machines")
