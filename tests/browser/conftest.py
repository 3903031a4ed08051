"""A browser for all tests here, and JupyterLab over a new lab for each module."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, sync_playwright
from support.jupyterlab import BIN, CHROMIUM, Window, jupyterlab

from rfe_helpers import run


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    program = next(filter(None, map(run.which, ("chromium", "chromium-browser", "google-chrome"))))
    arguments = [*CHROMIUM, *(["--no-sandbox"] if os.getuid() == 0 else [])]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory, chromium: Browser) -> Iterator[Window]:
    """A new user's JupyterLab over a new lab."""
    home = tmp_path_factory.mktemp("browser")
    lab = home / "lab"
    with jupyterlab(lab, chromium, home) as window:
        yield window
    subprocess.run([BIN / "rfe", "lab", "clean", "--lab", lab], check=True, timeout=300)
