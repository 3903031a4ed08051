"""The summary of a run as Markdown and in GitHub Actions: what it has, and its limits."""

from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import mistune
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rfe_helpers.workbook import github, markdown
from rfe_helpers.workbook.results import Failure, NotebookResult, Summary

FACTS = {"packages": 226, "update_bytes": 667_277, "reboot_seconds": 41}
HOSTILE = "```\n</details> | # x\n* [a](b) <script> \x1b[31mred @all `` "


def failing(text: str = HOSTILE) -> NotebookResult:
    failure = Failure(3, text, text, text, 2, text, text, remedy=text, output=text)
    return NotebookResult("20-bad", "failed", 61.0, failure, Path("20-bad.ipynb"))


def summary(*results: NotebookResult) -> Summary:
    return Summary(Path("runs"), "sandbox", datetime.now(UTC), 3.0, results, FACTS)


def page(text: str) -> str:
    return str(mistune.create_markdown(plugins=["table"], escape=False)(text))


def test_it_has_results_times_reasons_and_facts_with_units() -> None:
    good = NotebookResult("10-good", "passed", 2.0, None, Path("10-good.ipynb"))
    later = NotebookResult("30-later", "not run", reason="it needs 20-bad, which failed")
    html = page(markdown.render(summary(good, failing("it broke"), later)))
    for cells in (
        ("10-good", "✔ passed", "0:02"),
        ("20-bad", "✘ failed", "1:01"),
        ("30-later", "– not run: it needs 20-bad, which failed", "–"),
        ("Packages", "226"),
        ("Bytes of the update", "667.3 kB"),
        ("Reboot into it", "41 s"),
    ):
        row = "".join(f"  <td>{cell}</td>\n" for cell in cells)
        assert f"<tr>\n{row}</tr>" in html, cells
    assert html.index("it broke") < html.index("<table>")


@given(st.text(st.sampled_from(HOSTILE + "~-=_&:\\"), max_size=60))
def test_no_text_is_taken_for_more_than_text(text: str) -> None:
    html = page(markdown.render(summary(failing(text))))
    assert html.count("<details>") == html.count("</details>") == (2 if text else 1)
    assert html.count("<table>") == 2
    assert "<script>" not in html
    assert "<a " not in html
    assert "\x1b" not in html


def test_it_is_bounded_and_what_is_left_out_is_left_out_whole() -> None:
    many = summary(*(failing("x" * 50_000 + "ü`") for _ in range(60)))
    text = markdown.render(many)
    assert len(text.encode()) <= markdown.MOST
    assert text.endswith("it is in the report.\n")
    html = page(text)
    assert html.count("<details>") == html.count("</details>") > 2
    for most in (0, 10, 100, 1000, 30_000):
        assert len(markdown.render(many, most).encode()) <= most


@pytest.mark.parametrize("taken", [0, 1024 * 1024 - 400, 1024 * 1024 - 10, 1024 * 1024])
def test_the_summary_of_a_job_stays_below_what_github_takes(
    taken: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "step.md"
    path.write_text("x" * taken)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(path))
    github.append_summary(partial(markdown.render, summary(failing("it broke"))))
    assert path.stat().st_size <= 1024 * 1024
    assert path.read_text().startswith("x" * taken)
    assert ("it broke" in path.read_text()) == (taken == 0)


def test_a_notebook_from_elsewhere_has_no_place_in_the_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_WORKSPACE", str(tmp_path / "clone"))
    failure = Failure(0, "", "RfeError", "it broke\r\n50%")
    result = NotebookResult("own", "failed", failure=failure, path=tmp_path / "own.ipynb")
    interrupted = NotebookResult("a,b", "interrupted")
    lines = list(github.workflow_commands(summary(result, interrupted)))
    title = "own%2C before its first cell%3A RfeError"
    assert lines == [
        f"::error title={title}::it broke%0D%0A50%25",
        "::error title=a%2Cb::interrupted",
    ]
