"""The panels of a machine and its system in the browser, in the lab of a headless run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser
from support.jupyterlab import Window, jupyterlab, notebook

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]


@pytest.fixture(scope="module")
def window(
    workbook_lab: Path,
    workbook_summary: dict[str, Any],
    chromium: Browser,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Window]:
    with jupyterlab(workbook_lab, chromium, tmp_path_factory.mktemp("jupyter")) as window:
        yield window


def test_the_report_of_a_run_fits_a_phone(
    workbook_summary: dict[str, Any], chromium: Browser
) -> None:
    """Nothing scrolls sideways but tables, with every notebook unfolded."""
    page = chromium.new_page(viewport={"width": 375, "height": 800})
    page.goto(Path(workbook_summary["report"]).as_uri())
    assert page.locator("details[open]").count() == 0
    page.evaluate("() => document.querySelectorAll('details').forEach(each => each.open = true)")
    assert page.evaluate("() => document.documentElement.scrollWidth") == 375
    facts = page.locator("dl.facts dt").all_inner_texts()
    assert {"Commit", "Size", "Bytes of the update", "Reboot into it", "Rollback"} <= set(facts)
    page.close()


def test_the_machine_shows_its_screen_and_its_console(window: Window) -> None:
    window.open(notebook("50"))
    window.run_cells("nb50-02-code", "nb50-03-code", "nb50-32-code", seconds=300)
    panel = window.panel("nb50-32-code")
    panel.get_by_text("● running").wait_for()
    assert panel.locator("img").evaluate("img => img.naturalWidth") >= 640
    panel.get_by_text("login:").first.wait_for()
    assert panel.get_by_text("ssh -i").count() == 1
    window.shot(panel, "machine")
    window.pictures("machine")
    assert window.errors() == []
    assert window.clipped() == []
    assert window.complaints == []


def test_the_system_shows_its_deployments_and_rolls_back(window: Window) -> None:
    window.open(notebook("60"))
    cells = ("nb60-02-code", "nb60-03-code", "nb60-04-code", "nb60-36-code")
    window.run_cells(*cells, seconds=600)
    panel = window.panel("nb60-36-code")
    panel.get_by_text("● booted").wait_for()
    panel.get_by_role("button", name="Look").click()
    panel.get_by_text("✔ as it is now").wait_for()
    panel.get_by_text("Timers", exact=True).click()
    panel.get_by_text("systemd-tmpfiles-clean.timer").first.wait_for()
    boxes = panel.locator("code")
    first, other = boxes.first.inner_text(), boxes.nth(1).inner_text()
    for expected in (other, first):  # the second time puts the first deployment first again
        panel.get_by_role("button", name="Roll back").click()
        panel.locator("code").first.filter(has_text=expected).wait_for()
    panel.get_by_text("✔ the other deployment boots next").wait_for()
    window.shot(panel, "system")
    window.pictures("system")
    assert window.errors() == []
    assert window.clipped() == []
    assert window.complaints == []
