"""The table, the report and the JUnit XML of a matrix."""

import re
from xml.etree import ElementTree

import mistune
import pytest

from rfe_helpers.workbook.matrix import report, state


@pytest.fixture
def matrix(lab, plan_of):
    matrix = state.new_matrix(lab, plan_of("packages=tmux,<b>", "image_type=edge-commit,other"))
    matrix.changed(1, status="passed", seconds=62, facts={"packages": 228, "tree_bytes": 378e6})
    matrix.changed(2, status="failed", seconds=31, message="20, cell [4]: <it> broke\nin the end")
    matrix.changed(3, status="interrupted", seconds=5)
    matrix.folder(1).mkdir()
    (matrix.folder(1) / "report.html").write_text("the report")
    (matrix.folder(1) / "junit.xml").write_text(
        '<testsuites><testsuite name="20-build-a-commit"><testcase name="one"/></testsuite>'
        "</testsuites>"
    )
    return matrix


def test_the_table_has_a_row_for_each_combination_and_the_facts_that_there_are(matrix):
    lines = str(report.table(matrix)).splitlines()
    heads = ["packages", "image_type", "result", "time", "number of packages", "size"]
    assert re.split("  +", lines[0].strip()) == heads
    assert lines[2].split() == [
        "1",
        "tmux",
        "edge-commit",
        "✔",
        "passed",
        "1:02",
        "228",
        "378.0",
        "MB",
    ]
    assert lines[5].split() == ["4", "<b>", "other", "–", "not", "run", "–", "–", "–"]


def test_the_grid_has_columns_by_the_last_axis_and_leads_to_the_reports(matrix):
    page = report.render(matrix)
    grid = page[page.index('<table class="grid">') : page.index("</table>")]
    assert re.findall(r"<th>(.*?)</th>", grid) == [
        *("", "image_type=edge-commit", "image_type=other"),
        *("packages=tmux", "packages=&lt;b&gt;"),
    ]
    cells = re.findall(r'<td class="([a-z ]+)">', grid)
    assert cells == ["passed", "failed", "interrupted", "not run"]
    assert re.findall(r'href="(.*?)"', grid) == ["1/report.html"]
    assert "<span>number of packages: 228</span>" in grid
    assert "&lt;it&gt; broke" in page
    assert "1 of 4 combinations passed" in page
    assert "http" not in page


@pytest.mark.parametrize(
    ("axes", "rows", "columns"),
    [
        (["packages=a,b,c"], 3, 1),
        (["packages=a,b", "blueprint_version=1,2,3"], 2, 3),
        (["packages=a,b", "image_type=c,d", "blueprint_version=1,2,3"], 4, 3),
    ],
)
def test_the_grid_holds_any_number_of_axes(lab, plan_of, axes, rows, columns):
    page = report.render(state.new_matrix(lab, plan_of(*axes)))
    grid = page[page.index('<table class="grid">') : page.index("</table>")]
    assert grid.count("<td") == rows * columns
    assert grid.count("<tr") == rows + (len(axes) > 1)


def test_junit_has_the_suites_of_all_combinations(matrix, tmp_path):
    report.write_junit(matrix, tmp_path / "junit.xml")
    suites = list(ElementTree.parse(tmp_path / "junit.xml").getroot())
    assert [suite.get("name") for suite in suites] == [
        "packages=tmux, image_type=edge-commit / 20-build-a-commit",
        "packages=tmux, image_type=other / rfe run",
        "packages=<b>, image_type=edge-commit / rfe run",
        "packages=<b>, image_type=other / rfe run",
    ]
    results = [[child.tag for child in suite.find("testcase")] for suite in suites]
    assert results == [[], ["error"], ["error"], ["skipped"]]
    assert suites[1].find("testcase/error").get("message") == "20, cell [4]: <it> broke"


def test_markdown_has_the_table_and_the_failures(matrix):
    text = report.render_markdown(matrix)
    assert text.startswith("## RHEL for Edge workbook, a matrix: ■ interrupted\n")
    html = mistune.create_markdown(plugins=["table"])(text)
    assert "1 of 4 combinations passed" in html
    assert "<td>✔ passed</td>\n  <td>1:02</td>\n  <td>228</td>\n  <td>378.0 MB</td>" in html
    assert (
        "<h3>packages=tmux, image_type=other</h3>\n<pre><code>20, cell [4]: &lt;it&gt; broke"
        in html
    )
    assert len(report.render_markdown(matrix, 200).encode()) <= 200
