"""What a CI server gets of a run, as its consumers read it: junitparser, junit2html and mistune."""

import os
import re
import subprocess
import sys

import mistune
import pytest
from junitparser import JUnitXml
from support.command_line import RFE

pytestmark = pytest.mark.timeout(180)

CHECKS = """\
import time
from rfe_helpers.workbook import check
time.sleep(0.2)
check(True, "one & <all>")
time.sleep(0.6)
check(True, "the next")
check(True, "the next")
"""
FAILS = """\
print("\\x1b[31mline 1\\x1b[0m ``` | <b>", "$6$" + "a" * 30)
time.sleep(0.3)
check(False, "100%, really: yes", "try `this` | that")
"""


@pytest.fixture
def ci(lab, make, tmp_path):
    """The process of a run as a job of GitHub Actions has it; its files are in tmp_path."""
    notebooks = [make("20-second", CHECKS, FAILS), make("80-eighth", "1")]
    options = ["--junit", "ci/junit.xml", "--markdown", "ci/summary.md", "--lab", lab.directory]
    environment = {
        **os.environ,
        "GITHUB_ACTIONS": "true",
        "GITHUB_WORKSPACE": str(tmp_path),
        "GITHUB_STEP_SUMMARY": str(tmp_path / "step.md"),
    }
    return subprocess.run(
        [*RFE, "run", "--keep-going", *notebooks, *options],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )


def unescaped(text):
    for code, character in (("%2C", ","), ("%3A", ":"), ("%0A", "\n"), ("%0D", "\r"), ("%25", "%")):
        text = text.replace(code, character)
    return text


def test_servers_get_cases_annotations_and_a_summary(ci, tmp_path):
    assert ci.returncode == 1, ci.stderr
    junit = tmp_path / "ci/junit.xml"
    second, eighth = JUnitXml.fromfile(str(junit))
    assert (second.name, second.failures, eighth.name) == ("20-second", 1, "80-eighth")
    names = [case.name for case in second]
    assert names == ["one & <all>", "the next", "the next (2)", "100%, really: yes"]
    times = [case.time for case in second]
    assert times[0] >= 0.2
    assert 0.6 <= times[1] < times[1] + times[2] < 5
    assert times[2] < 0.3
    assert times[3] >= 0.3
    failing = list(second)[-1]
    (failure,) = failing.result
    place = "cell [3]: this does not hold: 100%, really: yes (to do: try `this` | that)"
    assert (failure.message, failure.type) == (place, "CheckFailedError")
    output = "line 1 ``` | <b> (a password hash, hidden)"
    assert failing.system_out == output
    for text in ("to do: try `this` | that", "time.sleep(0.3)", f"Its output:\n{output}"):
        assert text in failure.text

    page = tmp_path / "junit.html"
    command = [sys.executable, "-m", "junit2htmlreport", junit, page]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    assert "try `this` | that" in page.read_text()

    (line,) = [line for line in ci.stderr.splitlines() if line.startswith("::")]
    (properties, message) = re.fullmatch(r"::error (.*?)::(.*)", line).groups()
    pairs = (item.split("=", 1) for item in properties.split(","))
    place = {name: unescaped(text) for name, text in pairs}
    assert place["title"] == "20-second, cell [3]: CheckFailedError"
    lines = (tmp_path / place["file"]).read_text().splitlines()
    assert "check(False" in "".join(lines[int(place["line"]) - 1 :])
    assert "time.sleep(0.6)" not in "".join(lines[int(place["line"]) - 1 :])
    failed = "this does not hold: 100%, really: yes\nto do: try `this` | that"
    assert unescaped(message) == failed

    summary = (tmp_path / "ci/summary.md").read_text()
    assert summary == (tmp_path / "step.md").read_text()
    html = mistune.create_markdown(plugins=["table"])(summary)
    for text in ("20-second, cell [3]: CheckFailedError", "try `this` | that"):
        assert text in html
    assert "line 1 ``` | &lt;b&gt; (a password hash, hidden)" in html
    assert "<td>✘ failed</td>" in html
    assert "<td>✔ passed</td>" in html


def test_texts_of_a_notebook_are_no_commands_and_a_failed_check_has_a_name_of_its_own(
    lab, make, tmp_path
):
    """The runner trims lines, and then takes those that begin with :: for commands."""
    text = "one\\n  ::add-mask::e\\n##[error]no"
    cells = "from rfe_helpers.workbook import check\ncheck(True, 'one')", f"check(False, '{text}')"
    junit = tmp_path / "junit.xml"
    result = subprocess.run(
        [*RFE, "run", make("20-second", *cells), "--lab", lab.directory, "--junit", junit],
        env={**os.environ, "GITHUB_ACTIONS": "true"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1
    assert "add-mask" not in result.stdout
    stop, token, text, rest = re.fullmatch(
        r"(.*?)::stop-commands::(\w{32})\n(.*)\n::\2::\n(.*)", result.stderr, re.DOTALL
    ).groups()
    assert (stop, "  ::add-mask::e" in text, token in text) == ("", True, False)
    (line,) = rest.splitlines()
    assert line.startswith("::error ")
    (suite,) = JUnitXml.fromfile(str(junit))
    assert [case.name for case in suite] == ["one", "one (2)"]


def test_a_summary_that_cannot_be_written_changes_nothing(lab, make, tmp_path):
    result = subprocess.run(
        [*RFE, "run", make("20-second", "1"), "--lab", lab.directory],
        env={**os.environ, "GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": "/nowhere/step.md"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0
    assert result.stderr.startswith("rfe: no summary of the job: ")
    assert len(result.stderr.splitlines()) == 1
