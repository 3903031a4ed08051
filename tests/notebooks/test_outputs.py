"""The outputs that notebooks keep are what their cells show: nbval runs and compares them."""

import os
import subprocess
import sys

import nbformat
import pytest

from rfe_helpers.workbook.headless import find_notebooks
from rfe_helpers.workbook.notebooks import all_notebooks

# Notebooks that need no earlier one, so that they can run by themselves.
ALONE = find_notebooks(["00"])


def kept(path):
    cells = nbformat.read(path, as_version=4).cells
    return [cell for cell in cells if "nbval-check-output" in cell.metadata.get("tags", ())]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("path", ALONE, ids=lambda path: path.stem)
def test_kept_outputs_are_what_the_cells_show(path, tmp_path):
    assert kept(path)
    command = [sys.executable, "-m", "pytest", "--nbval-lax", "-p", "no:cacheprovider", path]
    result = subprocess.run(
        command,
        env={**os.environ, "HOME": str(tmp_path)},
        cwd=path.parent,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout


def test_only_those_notebooks_keep_outputs():
    assert [path for path in all_notebooks() if kept(path)] == ALONE
