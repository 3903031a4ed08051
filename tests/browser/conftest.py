"""JupyterLab over a new lab for each module."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser
from support.jupyterlab import BIN, Window, jupyterlab


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory, chromium: Browser) -> Iterator[Window]:
    """A new user's JupyterLab over a new lab."""
    home = tmp_path_factory.mktemp("browser")
    lab = home / "lab"
    with jupyterlab(lab, chromium, home) as window:
        yield window
    subprocess.run([BIN / "rfe", "lab", "clean", "--yes", "--lab", lab], check=True, timeout=300)
