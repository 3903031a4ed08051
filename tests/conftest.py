"""What several suites share: its being here puts tests/ on the path of imports (support/), and the
lab of a headless run of the short path, which is made when a test asks for it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

RFE = Path(sys.executable).parent / "rfe"


@pytest.fixture(scope="session")
def workbook_lab(tmp_path_factory):
    directory = tmp_path_factory.mktemp("workbook") / "lab"
    yield directory
    if directory.exists():
        subprocess.run([RFE, "lab", "clean", "--lab", directory], timeout=600)


@pytest.fixture(scope="session")
def workbook_summary(workbook_lab):
    """The summary of a run of the short path in a new lab; its machine goes on running."""
    command = [RFE, "run", "--json", "--lab", workbook_lab]
    result = subprocess.run(command, capture_output=True, text=True, timeout=2400)
    print(result.stderr)
    assert result.returncode == 0, result.stderr[-4000:]
    return json.loads(result.stdout)
