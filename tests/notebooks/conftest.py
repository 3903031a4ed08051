from pathlib import Path

import nbformat
import pytest
from nbformat import v4

from rfe_helpers.core import journal
from rfe_helpers.lab.lab import Lab

PARAMETERS = """\
lab: str = "~/rfe-lab"  # where everything is kept
profile: str = "sandbox"  # the release
seconds: float = 0.0  # how long to sleep
keep: bool = True  # whether to keep things
number: int = 3  # a number
word: str = "hello"  # a word
"""


@pytest.fixture
def lab(tmp_path):
    yield Lab(tmp_path / "lab")
    journal.open_journal(None)


@pytest.fixture
def make(tmp_path):
    """Makes a notebook: a title, parameters, then one cell per source."""

    def make(name: str, *sources: str, parameters: str = PARAMETERS) -> Path:
        cells = [
            v4.new_markdown_cell(f"# {name}"),
            v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}),
            *(
                v4.new_markdown_cell(source) if source.startswith("#") else v4.new_code_cell(source)
                for source in sources
            ),
        ]
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        notebook = v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
        path = tmp_path / f"{name}.ipynb"
        nbformat.write(notebook, path)
        return path

    return make
