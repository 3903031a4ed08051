"""The notebooks in the browser, by keyboard, and their panels; first those without a machine.

All tests share one lab and one window and run in the order of the file, as a person works.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import nbformat
import pytest
from nbformat import v4
from playwright.sync_api import expect
from support.jupyterlab import ARTEFACTS, Window, notebook

from rfe_helpers.workbook.chapters import FURTHER
from rfe_helpers.workbook.ui.parts import BRING_BACK, VIEW

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def run_by_keyboard(window: Window, number: str, seconds: float) -> None:
    """Run every cell of a notebook with Shift+Enter; its pictures go to the artefacts."""
    name = notebook(number)
    window.open(name)
    window.run_all(seconds)
    assert window.errors() == []
    assert window.clipped() == []
    window.save()
    window.pictures(Path(name).stem)
    assert window.complaints == []


@pytest.mark.parametrize("number", ["00", "10", "20", "30", "40"])
def test_a_notebook_is_run_by_keyboard(window: Window, number: str) -> None:
    run_by_keyboard(window, number, 900)


def test_text_that_does_not_fit_is_found(window: Window) -> None:
    window.open(notebook("00"))
    style = window.page.add_style_tag(content=".jp-MarkdownOutput p { width: 90px }")
    assert window.clipped() == []  # the text continues on the next line
    more = "p { white-space: nowrap; overflow: hidden }"
    style.evaluate("(element, more) => element.append('.jp-MarkdownOutput ' + more)", more)
    assert any("OSTree" in text for text in window.clipped())


# What a panel shows in lines of code, without those that it has run.
SHOWN = "pre:not(.rfe-commands pre)"


def test_the_editor_finds_adds_pushes_and_goes_back(window: Window) -> None:
    window.open(notebook("20"))
    window.run_cells("nb20-02-code", "nb20-03-code", "nb20-32-code", seconds=120)
    editor = window.panel("nb20-32-code")
    editor.get_by_placeholder("search packages").fill("htop")
    editor.get_by_placeholder("search packages").press("Enter")
    editor.get_by_text("interactive processes viewer").wait_for()
    editor.get_by_role("button", name="+").first.click()
    editor.locator(SHOWN).filter(has_text='name = "htop"').first.wait_for()
    editor.get_by_text(re.compile(r"\d+ packages in the image")).wait_for()
    window.shot(editor, "editor")
    assert window.barriers() == []
    assert window.clipped() == []
    editor.locator(".jupyter-widget-tagsinput").click()
    editor.locator(".jupyter-widget-taginput").press_sequentially("hotp")
    editor.locator(".jupyter-widget-taginput").press("Tab")
    editor.get_by_text("✘ hotp: no repository has it").wait_for()
    tags = editor.locator(".jupyter-widget-tagsinput > .jupyter-widget-tag")
    colours = tags.evaluate_all("tags => tags.map(tag => getComputedStyle(tag).backgroundColor)")
    assert len({*colours[:-1]}) == 1
    assert colours[-1] not in colours[:-1], "the unknown one is red"
    editor.get_by_role("button", name="Push").click()
    editor.get_by_text("✘ not pushed: no repository has hotp").wait_for()
    for theme in ("Light", "Dark"):
        window.theme(f"JupyterLab {theme}")
        window.page.screenshot(path=ARTEFACTS / f"editor-unknown-{theme}.png".lower())
    window.theme("JupyterLab Light")
    tags.last.locator(".jupyter-widget-tag-close").click()
    editor.get_by_text("✘ hotp: no repository has it").wait_for(state="detached")
    editor.get_by_role("button", name="Push").click()
    editor.get_by_text("✔ pushed: edge is at version").wait_for()
    history = editor.get_by_label("History")
    history.select_option(index=1)
    editor.locator(SHOWN).filter(has_text='+name = "htop"').wait_for()
    editor.get_by_role("button", name="Undo to this").click()
    editor.get_by_text("✔ undone").wait_for()
    assert editor.locator(SHOWN).filter(has_text='name = "htop"').count() == 0
    assert window.complaints == []


def test_a_compose_is_started_and_cancelled(window: Window) -> None:
    window.run_cells("nb20-34-code", seconds=120)
    panel = window.panel("nb20-34-code")
    # An edge commit of what was composed before is there in a second: too soon to be cancelled.
    panel.get_by_label("Type").select_option("guest-image")
    panel.get_by_role("button", name="Start").click()
    panel.get_by_text("is accepted").wait_for()
    panel.get_by_text("… RUNNING after").wait_for()
    window.shot(panel, "composes")
    assert window.barriers() == []
    assert window.clipped() == []
    panel.get_by_role("button", name="Cancel").click()
    panel.get_by_text("✘ FAILED after").wait_for()
    assert panel.get_by_text("Traceback").count() == 0
    assert window.complaints == []


def test_a_commit_is_browsed_and_compared(window: Window) -> None:
    window.open(notebook("30"))
    window.run_cells("nb30-02-code", "nb30-03-code", "nb30-32-code", seconds=120)
    panel = window.panel("nb30-32-code")
    panel.get_by_placeholder("part of a name").fill("tmux")
    panel.get_by_text("1 package", exact=True).wait_for()
    panel.get_by_role("tab", name="Files").click()
    panel.get_by_role("button", name="Open").click()
    panel.get_by_text("entries in /").wait_for()
    panel.get_by_role("button", name="▸ usr").click()
    panel.locator("code", has_text="/usr").first.wait_for()
    panel.get_by_label("Path").fill("/usr/lib/os-release")
    panel.get_by_label("Path").press("Enter")
    panel.get_by_text("PRETTY_NAME=").wait_for()
    window.shot(panel, "commit")
    assert window.barriers() == []
    assert window.clipped() == []
    panel.get_by_role("tab", name="Two commits").click()
    first = panel.get_by_label("Commit", exact=True).evaluate("s => s.selectedOptions[0].text")
    second = panel.get_by_label("Second")
    archives = [t for t in second.locator("option").all_inner_texts() if ".tar" in t]
    second.select_option(label=next(text for text in archives if text != first))
    panel.get_by_role("button", name="Compare").click()
    panel.get_by_text("not the same; files:").first.wait_for()
    assert window.errors() == []
    assert window.complaints == []


def test_a_saved_copy_has_the_twin_and_no_widget(window: Window) -> None:
    window.open(notebook("20"))
    window.run_cells("nb20-02-code", "nb20-03-code", "nb20-32-code", "nb20-34-code", seconds=120)
    window.save()
    saved = (window.root / notebook("20")).read_text()
    assert VIEW not in saved
    cells = {cell["id"]: cell for cell in json.loads(saved)["cells"]}
    for identity in ("nb20-32-code", "nb20-34-code"):
        twin, commands = ("".join(each["data"]["text/html"]) for each in cells[identity]["outputs"])
        assert "rfe-twin" in twin
        assert "rfe-commands" in commands
    window.open(notebook("20"))
    window.go_to("nb20-34-code")
    window.page.locator(".rfe-twin:visible").last.wait_for()
    assert window.page.get_by_text(BRING_BACK).locator("visible=true").count() == 2
    assert window.page.get_by_text("model not found").count() == 0
    assert window.complaints == []


def test_a_draft_outlives_the_kernel_and_is_seen_in_a_second_window(window: Window) -> None:
    cells = ("nb20-02-code", "nb20-03-code", "nb20-32-code")
    window.run_cells(*cells, seconds=120)
    editor = window.panel("nb20-32-code")
    editor.get_by_text("Customizations", exact=True).click()
    editor.get_by_label("Host name").fill("station-9")
    editor.get_by_label("Host name").press("Enter")
    draft = re.compile('hostname = "station-9"')
    editor.locator(SHOWN).filter(has_text=draft).first.wait_for()
    assert editor.get_by_text(BRING_BACK).is_hidden()
    window.restart_kernel()
    editor.get_by_text(BRING_BACK).wait_for()
    window.run_cells(*cells, seconds=120)
    window.panel("nb20-32-code").locator(SHOWN).filter(has_text=draft).first.wait_for()
    with window.another() as other:
        other.open(notebook("20"))
        other.run_cells("nb20-32-code", seconds=120)
        second = other.panel("nb20-32-code")
        second.locator(SHOWN).filter(has_text=draft).first.wait_for()
        second.get_by_role("button", name="Discard draft").click()
        second.get_by_text("✔ back to what was pushed last").wait_for()
        assert other.complaints == []
    first = window.panel("nb20-32-code")
    first.get_by_text("As TOML").wait_for()
    first.locator(SHOWN).filter(has_text=draft).first.wait_for(state="detached")
    assert window.complaints == []


def test_run_all_ends_at_the_error_and_after_a_restart_it_says_what_to_do(window: Window) -> None:
    prose = [v4.new_markdown_cell("# Part\n\n" + "text\n\n" * 9) for _ in range(8)]
    cells = [v4.new_code_cell("name = 1"), *prose[:4], v4.new_code_cell("print(name)", id="shows")]
    cells += [v4.new_code_cell("1 / 0"), *prose[4:], v4.new_code_cell("print('not run')")]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    mine = v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    nbformat.write(mine, window.root / "mine.ipynb")
    window.open("mine.ipynb")
    window.page.evaluate("() => window.jupyterapp.commands.execute('notebook:run-all-cells')")
    error = window.page.locator('[data-mime-type="application/vnd.jupyter.stderr"]:visible')
    error.filter(has_text="ZeroDivisionError").wait_for()
    expect(error).to_be_in_viewport()
    assert window.page.get_by_text("not run", exact=True).count() == 0

    window.restart_kernel()
    window.go_to("shows")
    window.page.keyboard.press("Shift+Enter")
    window.page.get_by_text("A cell above defines name").wait_for()
    window.picture("error")
    window.save()
    assert "scrollIntoView" not in (window.root / "mine.ipynb").read_text()
    assert window.complaints == []


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    "number", ["50", "60", "90", *(pytest.param(n, marks=pytest.mark.full) for n in FURTHER)]
)
def test_a_notebook_about_machines_is_run_by_keyboard(window: Window, number: str) -> None:
    run_by_keyboard(window, number, 3000)
