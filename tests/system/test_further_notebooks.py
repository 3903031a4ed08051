"""The notebooks beyond the short path, reduced, in the lab that the short path has left."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rfe_helpers.workbook.chapters import FURTHER, number_of

pytestmark = [pytest.mark.slow, pytest.mark.full, pytest.mark.timeout(7200)]
RFE = Path(sys.executable).parent / "rfe"
REDUCED = {"rounds": "1", "states": "2", "devices": "1"}


def test_every_further_notebook_passes_with_its_exercise(workbook_summary, workbook_lab):
    assert workbook_summary["status"] == "passed"
    command = [RFE, "run", *FURTHER, "--exercises", "--json", "--lab", workbook_lab]
    for name, value in REDUCED.items():
        command += ["--parameter", name, value]
    result = subprocess.run(command, capture_output=True, text=True, timeout=7000)
    print(result.stderr)
    assert result.returncode == 0, result.stderr[-4000:]
    results = json.loads(result.stdout)["notebooks"]
    assert {each["status"] for each in results} == {"passed"}
    assert sorted(number_of(each["name"]) for each in results) == sorted(FURTHER)
