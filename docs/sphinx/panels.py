"""Pictures of the panels in JupyterLab, over a lab in which notebooks 10 to 60 have run.

`python docs/sphinx/panels.py LAB` writes docs/panels/<panel>.png (`make record` does). The page
docs/panels.md shows them, each above its twin from the recording.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import recordings

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from support import browser  # noqa: E402
from support.jupyterlab import WIDTH, jupyterlab, notebook  # noqa: E402

PICTURES = ROOT / "docs" / "panels"
# By the name of the picture: the notebook, its cells before the panel, and a text that the panel
# has when it is complete.
PANELS = {
    "blueprint": ("20", ("02", "03"), "32", "packages in the image"),
    "compose": ("20", ("02", "03"), "34", "FINISHED"),
    "commit": ("30", ("02", "03"), "32", "Packages"),
    "machine": ("50", ("02", "03"), "32", "● running"),
    "node": ("60", ("02", "03", "04"), "36", "● booted"),
}


def take(lab: Path) -> None:
    """Take the pictures of all panels."""
    PICTURES.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as home,
        browser.chromium() as chromium,
        jupyterlab(lab, chromium, Path(home)) as window,
    ):
        # JupyterLab draws nothing below the end of the window.
        window.page.set_viewport_size({"width": WIDTH, "height": 2400})
        for name, (number, before, cell, complete) in PANELS.items():
            window.open(notebook(number))
            cells = [f"nb{number}-{each}-code" for each in (*before, cell)]
            window.run_cells(*cells, seconds=600)
            panel = window.panel(cells[-1])
            panel.get_by_text(complete).first.wait_for()
            path = PICTURES / f"{name}.png"
            path.write_bytes(recordings.compact(panel.screenshot()))
            print(f"{path.stat().st_size / 1e3:8.0f} kB  {path}")


if __name__ == "__main__":
    take(Path(sys.argv[1]).expanduser())
