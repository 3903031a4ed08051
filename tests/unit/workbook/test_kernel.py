"""What the kernels of JupyterLab add to cells, in an IPython shell without a kernel."""

import json
from importlib import resources
from types import SimpleNamespace

import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from jupyter_client.kernelspec import KernelSpecManager

from rfe_helpers.core import journal
from rfe_helpers.lab.lab import Lab
from rfe_helpers.workbook import activity, jupyter, kernel

CELLS = {
    "one": "import os.path\nfrom a import b as my_lab\n",
    "two": "lab: str = 'x'  # a lab\ndef has(x):\n    inside = 1\nfor each in (): pass",
    "broken": "this is no Python",
    "here": "1",
    "below": "later = 1",
}


@pytest.fixture
def shell(tmp_path, monkeypatch):
    cells = [
        {"id": name, "cell_type": "code", "source": source.splitlines(keepends=True)}
        for name, source in CELLS.items()
    ]
    document = tmp_path / "20-mine.ipynb"
    document.write_text(json.dumps({"cells": [{"cell_type": "markdown"}, *cells]}))
    monkeypatch.setenv("JPY_SESSION_NAME", str(document))
    shell = InteractiveShell.instance()
    shell.extension_manager.load_extension("rfe_helpers.workbook.kernel")
    yield shell
    shell.history_manager.end_session()
    InteractiveShell.clear_instance()


def shown(shell, source: str, cell: str = "here") -> list:
    """The outputs after a cell: their data and metadata."""
    with capture_output(stdout=True, stderr=True) as captured:
        shell.run_cell(source, cell_id=cell, store_history=False)
    return [{"data": each.data, "metadata": each.metadata} for each in captured.outputs]


@pytest.mark.parametrize("name", ["my_lab", "os", "has", "each", "lab"])
def test_a_name_of_a_cell_above_says_to_run_the_cells_above(shell, name):
    first, second = shown(shell, f"print({name})")
    assert f"A cell above defines {name}," in first["data"]["text/plain"]
    assert "Run → Run All Above Selected Cell" in first["data"]["text/html"]
    assert "scrollIntoView" in second["data"]["application/javascript"]


@pytest.mark.parametrize("name", ["later", "nobodys", "path", "inside"])
def test_a_name_of_no_cell_above_is_an_error_like_others(shell, name):
    (output,) = shown(shell, f"print({name})")
    assert list(output["data"]) == ["application/javascript"]


def test_an_error_in_the_first_cell_or_without_a_file_is_shown_as_it_is(shell, tmp_path):
    assert len(shown(shell, "print(my_lab)", "one")) == 1
    (tmp_path / "20-mine.ipynb").unlink()
    assert len(shown(shell, "print(my_lab)")) == 1
    assert len(shown(shell, "for")) == 1


def test_a_cell_that_works_shows_nothing_more(shell):
    assert shown(shell, "x = 1") == []


def test_a_headless_run_started_in_jupyterlab_has_none_of_it(monkeypatch):
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    registered = []
    events = SimpleNamespace(register=lambda *both: registered.append(both))
    kernel.load_ipython_extension(SimpleNamespace(events=events))
    assert registered == []


def test_our_kernelspec_is_the_one_that_jupyterlab_takes(monkeypatch, tmp_path):
    other = tmp_path / "kernels" / "python3" / "kernel.json"
    other.parent.mkdir(parents=True)
    other.write_text('{"argv": ["another-python"]}')
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    assert KernelSpecManager().get_kernel_spec("python3").argv == ["another-python"]
    lab = Lab(tmp_path / "lab")
    journal.open_journal(None)
    monkeypatch.setenv("JUPYTER_PATH", jupyter.environment(lab)["JUPYTER_PATH"])
    spec = KernelSpecManager().get_kernel_spec("python3")
    assert spec.argv[-1] == f"--ext={kernel.__name__}"


def test_what_it_does_to_the_window_is_not_saved(shell):
    (output,) = shown(shell, "1 / 0")
    source = resources.files("rfe_helpers.workbook") / "jupyter_settings/jupyter_server_config.py"
    config = SimpleNamespace(
        ContentsManager=SimpleNamespace(),
        IdentityProvider=SimpleNamespace(),
        ServerApp=SimpleNamespace(),
    )
    exec(source.read_text(), {"get_config": lambda: config})
    kept = {"output_type": "error"}
    cell = {"outputs": [kept, {"output_type": "display_data", **output}]}
    model = {"type": "notebook", "content": {"cells": [cell]}}
    config.ContentsManager.pre_save_hook(model=model)
    assert cell["outputs"] == [kept]


def test_a_trainer_sees_what_ran_what_failed_and_that_all_is_done(shell, tmp_path, monkeypatch):
    lab = Lab(tmp_path / "lab")
    monkeypatch.setenv("RFE_LAB", str(lab.directory))
    shown(shell, "1 / 0", "one")
    seen = activity.of(lab.directory)
    assert (seen.notebook, seen.running) == ("20", False)
    assert seen.notebooks["20"].error == "ZeroDivisionError: division by zero"
    shown(shell, "1", "one")
    assert activity.of(lab.directory).notebooks["20"].status == "begun"
    shown(shell, "later = 1", "below")  # the last cell
    assert activity.of(lab.directory).notebooks["20"].status == "done"
    journal.open_journal(None)
