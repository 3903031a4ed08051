"""The panels of a machine and its system in the browser, in the lab of a headless run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, FrameLocator, Page, expect
from support.browser import barriers
from support.disks import boot_sector
from support.jupyterlab import ARTEFACTS, Window, jupyterlab, notebook

from rfe_helpers.core.wait import Deadline, wait_for
from rfe_helpers.lab.lab import Lab
from rfe_helpers.machine.vm import Machine, VmSpec

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
    assert page.locator("details.notebook[open]").count() == 0
    page.evaluate("() => document.querySelectorAll('details').forEach(each => each.open = true)")
    assert page.evaluate("() => document.documentElement.scrollWidth") == 375
    facts = page.locator("dl.facts dt").all_inner_texts()
    assert {"Commit", "Size", "Bytes of the update", "Reboot into it", "Rollback"} <= set(facts)
    page.close()


# How many pixels of a machine's screen are bright.
BRIGHT = """canvas => {
  const all = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
  let count = 0;
  for (let at = 0; at < all.length; at += 4) if (all[at] + all[at + 1] + all[at + 2] > 200) count++;
  return count;
}"""


class Desk:
    """The page of a machine, alone or in a panel."""

    def __init__(self, page: Page, part: Page | FrameLocator) -> None:
        self.page = page
        self.state = part.locator("#state")
        self.screen = part.locator("#picture canvas")
        self.console = part.locator(".xterm-rows")
        self.terminal = part.locator("#terminal")
        self.text = part.get_by_label("Text to type")
        self.button = lambda name: part.get_by_role("button", name=name)

    def connected(self) -> None:
        expect(self.state).to_have_text("● connected", timeout=30_000)

    def says(self, text: str, seconds: float = 60) -> None:
        """Wait until the console shows a text."""
        expect(self.console).to_contain_text(text, timeout=seconds * 1000)

    def bright(self) -> int:
        return int(self.screen.evaluate(BRIGHT))

    def shows(self, pixels: int) -> None:
        """Wait until more pixels of the screen are bright: the first picture comes after the
        connection."""
        wait_for(lambda: self.bright() > pixels, Deadline(30), f"{pixels} pixels are bright")

    def type(self, text: str) -> None:
        """On the console, by keyboard; a slow machine loses keys that come at once."""
        self.terminal.click()
        self.page.keyboard.type(text, delay=30)


@contextmanager
def desk(window: Window, name: str) -> Iterator[Desk]:
    """A page of its own for a machine."""
    page = window.page.context.browser.new_page(viewport={"width": 1100, "height": 700})
    window.watch(page)
    page.goto(f"{window.address}/rfe/machines/{name}?token={window.token}")
    yield Desk(page, page)
    page.close()


def test_the_machine_shows_its_screen_and_its_console(window: Window) -> None:
    window.open(notebook("50"))
    window.run_cells("nb50-02-code", "nb50-03-code", "nb50-32-code", seconds=300)
    panel = window.panel("nb50-32-code")
    panel.get_by_text("● running").wait_for()
    inside = Desk(window.page, panel.frame_locator("iframe"))
    inside.connected()
    assert inside.screen.evaluate("canvas => canvas.width") >= 640
    inside.shows(500)
    inside.says("login:")
    assert panel.get_by_text("ssh -i").count() == 1
    window.shot(panel, "machine")
    window.pictures("machine")
    assert window.errors() == []
    assert window.clipped() == []
    assert window.complaints == []


def test_a_machine_is_worked_by_keyboard_and_others_see_it(window: Window) -> None:
    with desk(window, "edge-1") as one, desk(window, "edge-1") as two:
        one.connected()
        one.says("login:")
        one.type("\r")
        one.type("core\r")
        one.says("Password:")
        one.type("edge\r")
        one.says("core@")
        one.type("echo $((6 * 7))-from-the-keyboard\r")
        for each in (one, two):
            each.says("42-from-the-keyboard")
        word = one.terminal.get_by_text("42-from-the-keyboard", exact=True).bounding_box()
        assert word is not None
        one.page.mouse.dblclick(word["x"] + 5, word["y"] + 5)
        one.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        one.button("Copy selection").click()
        one.text.focus()
        one.page.keyboard.press("Control+v")
        expect(one.text).to_have_value("42-from-the-keyboard")
        one.text.fill("clear; logout")
        one.button("Type on the console").click()
        one.page.keyboard.press("Enter")
        one.says("login:")

        two.connected()
        two.shows(500)
        before = two.bright()
        one.screen.click()
        one.page.keyboard.type("nobody-by-keyboard", delay=100)
        one.text.fill("-and-by-TEXT")
        one.button("Type on the screen").click()
        expect(one.text).to_have_value("", timeout=60_000)
        for each in (one, two):
            each.shows(before + 400)
        ARTEFACTS.mkdir(parents=True, exist_ok=True)
        for scheme in ("light", "dark"):
            one.page.emulate_media(color_scheme=scheme)
            one.page.screenshot(path=ARTEFACTS / f"machine-page-{scheme}.png")
            assert barriers(one.page) == []
        one.page.set_viewport_size({"width": 375, "height": 800})
        assert one.page.evaluate("() => document.documentElement.scrollWidth") == 375
        one.page.screenshot(path=ARTEFACTS / "machine-page-phone.png", full_page=True)
    assert window.complaints == []


def test_a_page_follows_a_machine_that_is_reset_and_restarted(
    window: Window, workbook_lab: Path
) -> None:
    """A machine that starts at once: its boot sector writes a line."""
    lab = Lab(workbook_lab)
    disk = boot_sector(lab.folder("machines", "small"), "hello\r\n")
    spec = VmSpec("small", disk=disk, memory_mib=64, cpus=1, network=False)
    with desk(window, "small") as page:
        expect(page.state).to_have_text("○ small is off; this page waits for it")
        machine = Machine.start(lab, spec)
        page.connected()
        page.says("hello")
        page.button("Ctrl-Alt-Del").click()
        wait_for(lambda: machine.console().count("hello") == 2, Deadline(30), "it is reset")
        machine.reset()
        wait_for(lambda: machine.console().count("hello") == 3, Deadline(30), "it is reset")
        page.connected()
        machine.kill()
        expect(page.state).to_have_text("○ small is off; this page waits for it")
        page.says("hello")
        machine = Machine.start(lab, spec)
        page.connected()
        expect(page.console).to_have_text("hello", use_inner_text=True)

        page.screen.click()
        page.page.keyboard.press("Control+Alt")
        expect(page.button("Ctrl-Alt-Del")).to_be_focused()
        page.page.keyboard.press("Tab")
        page.page.keyboard.press("Enter")
        assert page.page.evaluate("() => document.fullscreenElement.id") == "screen"
        page.page.keyboard.press("Enter")
        page.page.wait_for_function("() => !document.fullscreenElement")
        machine.kill()
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
    checksums = panel.locator("svg text").filter(has_text=re.compile("^[0-9a-f]{12}$"))
    first, other = checksums.nth(0).text_content(), checksums.nth(1).text_content()
    for expected in (other, first):  # the second time puts the first deployment first again
        panel.get_by_role("button", name="Roll back").click()
        checksums.first.filter(has_text=expected).wait_for()
    panel.get_by_text("✔ the other deployment boots next").wait_for()
    window.shot(panel, "system")
    window.pictures("system")
    assert window.errors() == []
    assert window.clipped() == []
    assert window.complaints == []


@pytest.mark.full
def test_a_machine_is_installed_by_hand(window: Window, workbook_lab: Path) -> None:
    """As notebook 50 says: `e` in the menu of the ISO, the kickstart, and a login at the end."""
    window.open(notebook("50"))
    cells = ("nb50-02-code", "nb50-03-code", "nb50-05-code", "nb50-34-code")
    window.run_cells(*cells, seconds=600)
    panel = window.panel("nb50-34-code")
    argument = window.page.get_by_text("inst.ks=http").locator("visible=true").last.inner_text()
    page = Desk(window.page, panel.frame_locator("iframe"))
    panel.get_by_role("button", name="Start").click()
    page.connected()
    page.screen.click()
    page.says("Install Debian")
    window.page.keyboard.press("e")
    page.says("setparams")
    for key in ("ArrowDown", "ArrowDown", "End"):
        window.page.keyboard.press(key, delay=200)
    page.text.fill(" " + argument.strip())
    page.button("Type on the screen").click()
    expect(page.text).to_have_value("", timeout=60_000)
    page.says(argument.strip().rpartition("/")[0][:30])  # GRUB wraps the line
    window.shot(panel, "by-hand-menu")
    window.page.keyboard.press("Control+x")
    page.says("RFE-INSTALL-STEP", 300)
    window.shot(panel, "by-hand-installer")
    page.says("edge-1 login:", 900)
    page.type("core\r")
    page.says("Password:")
    page.type("edge\r")
    page.says("core@")
    window.shot(panel, "by-hand")
    window.run_cells("nb50-35-code", seconds=60)
    (exercise,) = [cell for cell in window.cells() if cell["id"] == "nb50-35-code"]
    assert "✔ a machine that you installed by hand" in str(exercise["outputs"])
    machine = Machine.find(Lab(workbook_lab), "by-hand")
    assert machine is not None
    machine.kill()
    assert window.complaints == []
