"""JupyterLab as `rfe lab open` starts it, in Debian's Chromium, worked by keyboard and mouse."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, ConsoleMessage, Page
from support.browser import barriers

from rfe_helpers.core import files
from rfe_helpers.core.wait import Deadline, wait_for
from rfe_helpers.workbook.headless import find_notebooks

BIN = Path(sys.executable).parent
# Screenshots of every run, to be looked at: not in git.
ARTEFACTS = Path(__file__).parents[2] / "artefacts" / "browser"
WIDTH, HEIGHT = 1280, 900
# What JupyterLab's own parts complain about, and nothing of ours can help; the last one is a window
# that hears of widgets of a kernel before its restart, or of another window.
HARMLESS = re.compile(
    r"favicon|ResizeObserver loop|Download the React DevTools|Comm not found for comm id"
)
# Of every code cell with something in it: how far it is, and its outputs.
CELLS = """() => {
  const panel = window.jupyterapp.shell.currentWidget;
  return panel.content.widgets.filter(
    cell => cell.model.type === 'code' && cell.model.sharedModel.getSource()).map(cell => ({
    id: cell.model.id, count: cell.model.executionCount, state: cell.model.executionState,
    outputs: cell.model.outputs.toJSON()}));
}"""

# Texts of outputs, panels and prose that are cut off by something around them that hides what does
# not fit and cannot be scrolled; and what is chosen in a list that is too narrow for it.
CLIPPED = """() => {
  const root = window.jupyterapp.shell.currentWidget.content.node;
  const hides = value => value === 'hidden' || value === 'clip';
  const found = [];
  const isCut = element => {
    const range = document.createRange();
    range.selectNodeContents(element);
    const text = range.getBoundingClientRect();
    for (let around = element; around && around !== root; around = around.parentElement) {
      const style = getComputedStyle(around), box = around.getBoundingClientRect();
      if (hides(style.overflowX) && (text.right > box.right + 1 || text.left < box.left - 1))
        return true;
      if (hides(style.overflowY) && (text.bottom > box.bottom + 3 || text.top < box.top - 3))
        return true;
      if (![style.overflowX, style.overflowY].every(v => v === 'visible' || hides(v)))
        return false;
    }
    return false;
  };
  const pen = document.createElement('canvas').getContext('2d');
  for (const element of root.querySelectorAll('.jp-OutputArea-output *, .jp-MarkdownOutput *')) {
    if (!element.getClientRects().length) continue;
    if (element.tagName === 'SELECT') {
      if (element.size > 1 || !element.selectedOptions.length) continue;
      pen.font = getComputedStyle(element).font;
      const text = element.selectedOptions[0].text.trim();
      if (pen.measureText(text).width > element.clientWidth) found.push(text);
    } else if ([...element.childNodes].some(n => n.nodeType === 3 && n.textContent.trim())
               && element.tagName !== 'OPTION' && isCut(element)) {
      found.push(element.textContent.trim());
    }
  }
  return found;
}"""


class Window:
    """One browser window with JupyterLab, which serves the notebooks in `root`. `complaints` are
    errors on the browser's console."""

    def __init__(self, page: Page, root: Path, address: str, token: str) -> None:
        self.page = page
        self.root = root
        self.address = address
        self.token = token
        self.complaints: list[str] = []
        self.watch(page)

    def watch(self, page: Page) -> None:
        """Note the complaints of a page."""
        page.on("console", self._note)
        page.on("pageerror", lambda error: self.complaints.append(error.stack or str(error)))

    def _note(self, message: ConsoleMessage) -> None:
        if message.type == "error" and not HARMLESS.search(message.text):
            where = message.location.get("url", "")
            self.complaints.append(f"{message.text} ({where.partition('?')[0]})")

    def open(self, name: str) -> None:
        """Open a notebook by its address, and wait for its kernel."""
        self.page.goto(f"{self.address}/lab/tree/{name}?token={self.token}")
        self.page.wait_for_function("() => window.jupyterapp")
        # What was in front before comes back first, on a busy machine a while after the page.
        self.page.evaluate("async () => { await window.jupyterapp.restored; }")
        self.page.wait_for_function(
            "name => window.jupyterapp?.shell.currentWidget?.title.label === name", arg=name
        )
        self.page.wait_for_function(
            "() => window.jupyterapp.shell.currentWidget.sessionContext?.session?.kernel"
            "?.connectionStatus === 'connected'"
        )
        self.page.locator(".jp-Notebook:visible").first.wait_for()
        self.page.evaluate("() => window.jupyterapp.shell.collapseLeft()")

    def cells(self) -> list[dict[str, Any]]:
        """All code cells of the notebook in front, as JupyterLab holds them."""
        found: list[dict[str, Any]] = self.page.evaluate(CELLS)
        return found

    def run_all(self, seconds: float) -> None:
        """Shift+Enter from the first cell to the last, as a person does, until all have ended."""
        self.page.evaluate(
            "() => { const n = window.jupyterapp.shell.currentWidget.content;"
            " n.activeCellIndex = 0; n.mode = 'command'; n.node.focus(); }"
        )
        count = self.page.evaluate(
            "() => window.jupyterapp.shell.currentWidget.content.widgets.length"
        )
        for _ in range(count):
            self.page.keyboard.press("Shift+Enter")
        self.finish(seconds)

    def run_cells(self, *identities: str, seconds: float) -> None:
        """Run some cells, one after the other."""
        for identity in identities:
            self.go_to(identity)
            self.page.keyboard.press("Shift+Enter")
        self.finish(seconds, *identities)

    def restart_kernel(self) -> None:
        self.page.evaluate(
            "() => window.jupyterapp.shell.currentWidget.sessionContext.restartKernel()"
        )

    @contextmanager
    def another(self) -> Iterator[Window]:
        """A second window on the same JupyterLab."""
        page = self.page.context.browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.set_default_timeout(120_000)
        yield Window(page, self.root, self.address, self.token)
        page.close()

    def go_to(self, identity: str) -> None:
        """Make a cell the active one, and bring it into view."""
        self.page.evaluate(
            "async id => { const n = window.jupyterapp.shell.currentWidget.content;"
            " n.activeCellIndex = n.widgets.findIndex(c => c.model.id === id);"
            " n.mode = 'command'; n.node.focus(); await n.scrollToCell(n.activeCell); }",
            identity,
        )

    def finish(self, seconds: float, *identities: str) -> None:
        """Wait until the cells have ended; one with an error ends the wait, and fails."""

        def ended() -> bool:
            cells = [c for c in self.cells() if not identities or c["id"] in identities]
            assert not self.errors(), self.errors()
            return all(cell["count"] and cell["state"] == "idle" for cell in cells)

        def look() -> bool:
            self.page.wait_for_timeout(300)
            return ended()

        wait_for(look, Deadline(seconds), "all cells have ended", every=0.2)

    def errors(self) -> list[str]:
        """Errors and stderr among the outputs of the notebook in front."""
        outputs = [output for cell in self.cells() for output in cell["outputs"]]
        return [
            str(output.get("evalue") or output.get("text"))
            for output in outputs
            if output["output_type"] == "error" or output.get("name") == "stderr"
        ]

    def clipped(self) -> list[str]:
        """Texts of the notebook in front that do not fit where they stand."""
        found: list[str] = self.page.evaluate(CLIPPED)
        return found

    def barriers(self) -> list[str]:
        """What axe-core finds in the prose, the outputs and the panels of the notebook in front."""
        notebook = ".jp-NotebookPanel:not(.lm-mod-hidden)"
        parts = [f"{notebook} {part}" for part in (".jp-MarkdownOutput", ".jp-OutputArea-output")]
        return barriers(self.page, within=parts)

    def panel(self, cell: str) -> Any:
        """The panel that a cell shows."""
        self.go_to(cell)
        found = self.page.locator(".rfe-panel:visible").last
        found.wait_for()
        return found

    def save(self) -> None:
        self.page.keyboard.press("Escape")
        self.page.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")
        self.page.wait_for_function(
            "() => !window.jupyterapp.shell.currentWidget.context.model.dirty"
        )

    def shot(self, panel: Any, name: str) -> None:
        """A panel alone; with RFE_PICTURES=docs it becomes the README's picture of that name."""
        directory = Path(os.environ.get("RFE_PICTURES") or ARTEFACTS)
        directory.mkdir(parents=True, exist_ok=True)
        panel.screenshot(path=directory / f"{name}.png")

    def theme(self, name: str) -> None:
        """Choose a theme. JupyterLab covers the page meanwhile, and takes its cover away twice when
        the next theme comes too early."""
        self.page.evaluate(
            "name => window.jupyterapp.commands.execute('apputils:change-theme', {theme: name})",
            name,
        )
        self.page.wait_for_function("name => document.body.dataset.jpThemeName === name", arg=name)
        self.page.locator("#jupyterlab-splash").wait_for(state="detached")

    def pictures(self, name: str) -> None:
        """The whole notebook in front, light and dark, into the artefacts; nothing in its prose,
        outputs and panels keeps anybody out."""
        for theme, word in (("JupyterLab Light", "light"), ("JupyterLab Dark", "dark")):
            self.theme(theme)
            self.picture(f"{name}-{word}")
            found = self.barriers()
            assert not found, found
        self.theme("JupyterLab Light")

    def picture(self, name: str, most: int = 12000) -> Path:
        """The whole notebook in front: the window is made as high as it is for a moment."""
        ARTEFACTS.mkdir(parents=True, exist_ok=True)
        height = HEIGHT
        for _ in range(3):  # what comes into view is drawn then, and may be higher than thought
            wanted = self.page.evaluate(
                "() => { const o = window.jupyterapp.shell.currentWidget.content.outerNode;"
                " o.scrollTop = 0;"
                " return Math.ceil(o.scrollHeight + window.innerHeight - o.clientHeight); }"
            )
            height = min(max(HEIGHT, wanted), most)
            self.page.set_viewport_size({"width": WIDTH, "height": height})
            self.page.wait_for_timeout(700)
        path = ARTEFACTS / f"{name}.png"
        self.page.screenshot(path=path)
        self.page.set_viewport_size({"width": WIDTH, "height": HEIGHT})
        return path


@contextmanager
def jupyterlab(lab: Path, chromium: Browser, home: Path) -> Iterator[Window]:
    """JupyterLab over a lab, as a new user's first `rfe lab open`, with a window on it."""
    for name in ("config", "data", "runtime"):
        (home / name).mkdir(parents=True, exist_ok=True)
    files.write_json(
        home / "config" / "jupyter_lab_config.json", {"LabApp": {"expose_app_in_browser": True}}
    )
    # So that all of a notebook is there to be looked at, and no empty page below it.
    files.write_json(
        home / "settings" / "@jupyterlab" / "notebook-extension" / "tracker.jupyterlab-settings",
        {"windowingMode": "none", "scrollPastEnd": False},
    )
    directories = {
        "JUPYTER_CONFIG_DIR": home / "config",
        "JUPYTER_DATA_DIR": home / "data",
        "JUPYTER_RUNTIME_DIR": home / "runtime",
        "JUPYTERLAB_SETTINGS_DIR": home / "settings",
        "JUPYTERLAB_WORKSPACES_DIR": home / "workspaces",
        "IPYTHONDIR": home / "ipython",
    }
    log = home / "jupyter.log"
    with log.open("wb") as file:
        server = subprocess.Popen(
            [BIN / "rfe", "lab", "open", "--no-browser", "--lab", lab],
            env={**os.environ, **{name: str(path) for name, path in directories.items()}},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        said = wait_for(
            lambda: re.search(r"(http://127\.0\.0\.1:\d+)/lab\S*\?token=(\w+)", log.read_text()),
            Deadline(120),
            f"JupyterLab says its address: {log}",
        )
        page = chromium.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.set_default_timeout(120_000)
        window = Window(page, lab / "notebooks", said[1], said[2])
        yield window
        page.close()
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(60)


def notebook(number: str) -> str:
    return find_notebooks([number])[0].name
