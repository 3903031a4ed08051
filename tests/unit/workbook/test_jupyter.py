import json
import os
import shutil
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest

from rfe_helpers.core import journal
from rfe_helpers.lab.lab import Lab
from rfe_helpers.workbook import jupyter
from rfe_helpers.workbook.ui.parts import VIEW

SETTINGS = resources.files("rfe_helpers.workbook") / "jupyter_settings"


@pytest.fixture
def lab(tmp_path):
    yield Lab(tmp_path / "lab")
    journal.open_journal(None)


def test_jupyterlab_is_on_loopback_and_makes_its_own_token(tmp_path):
    argv = jupyter.argv(tmp_path, 8899, browser=False)
    assert "--ServerApp.ip=127.0.0.1" in argv
    assert "--ServerApp.port=8899" in argv
    assert "--no-browser" in argv
    assert not [word for word in argv if "token" in word.lower()]
    assert "--no-browser" not in jupyter.argv(tmp_path, 8899)


def test_a_terminal_of_jupyterlab_finds_rfe_and_the_lab(lab):
    environment = jupyter.environment(lab)
    assert shutil.which("rfe", path=environment["PATH"]) == str(Path(sys.executable).parent / "rfe")
    command = ["rfe", "lab", "show", "--json"]
    shown = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, check=True
    )
    assert json.loads(shown.stdout)["directory"] == str(lab.directory)


class Config:
    """The object that traitlets gives to a configuration file: any section, any setting."""

    def __init__(self):
        self.ContentsManager = self.IdentityProvider = self.ServerApp = self

    pre_save_hook = None


def test_a_notebook_is_saved_with_the_twins_of_its_panels():
    config = Config()
    source = (SETTINGS / "jupyter_server_config.py").read_text()
    exec(compile(source, "config", "exec"), {"get_config": lambda: config})
    panel = {"text/html": "<b>twin</b>", "text/plain": "twin", VIEW: {"model_id": "x"}}
    other = {"text/plain": "IntSlider()", VIEW: {"model_id": "y"}}
    outputs = [{"output_type": "display_data", "data": data} for data in (panel, other)]
    cells = [{"cell_type": "code", "outputs": [*outputs, {"output_type": "stream"}]}, {}]
    config.pre_save_hook(model={"type": "notebook", "content": {"cells": cells}}, path="x")
    assert panel == {"text/html": "<b>twin</b>", "text/plain": "twin"}
    assert VIEW in other, "a widget without a twin is left alone"
    config.pre_save_hook(model={"type": "file", "content": "text"}, path="x")
    config.pre_save_hook(model={"type": "notebook"}, path="x")


def test_jupyterlab_asks_nothing_of_the_internet():
    path = Path(str(SETTINGS / "labconfig" / "default_setting_overrides.json"))
    settings = json.loads(path.read_text())["@jupyterlab/apputils-extension:notification"]
    assert settings == {"checkForUpdates": False, "fetchNews": "false"}
