"""How far a reader has come, what is next and how long it takes.

Times are those of the sandbox on two cores of an AMD EPYC, measured without KVM and estimated with
it, and scaled by how slow this machine is (speed.py); a real Image Builder takes some minutes for a
compose. After a headless run of a notebook in the lab, the time of that run is used instead.
"""

from __future__ import annotations

import base64
import html
import json
from typing import Any

from rfe_helpers.core.units import size
from rfe_helpers.lab.cache import cache_directory
from rfe_helpers.lab.lab import Lab
from rfe_helpers.machine.accelerator import find_accelerator
from rfe_helpers.workbook.chapters import LIFE_CYCLE, NEEDS, STEPS, number_of
from rfe_helpers.workbook.commands import watch
from rfe_helpers.workbook.doctor import DISK_STEPS, require_tools
from rfe_helpers.workbook.notebooks import all_notebooks
from rfe_helpers.workbook.show import Markup, Table, show
from rfe_helpers.workbook.speed import slowness

# Seconds with KVM and without, by notebook.
_SECONDS = {
    "00": (1, 1),
    "10": (1, 1),
    "15": (200, 300),
    "20": (38, 38),
    "30": (48, 48),
    "40": (15, 15),
    "50": (60, 225),
    "60": (90, 260),
    "65": (60, 180),
    "67": (240, 720),
    "70": (300, 900),
    "80": (240, 720),
    "85": (120, 300),
    "90": (27, 27),
    "95": (30, 30),
    "100": (150, 330),
    "105": (30, 30),
}
_WITH_BUILDER = ("10", "15", "20", "30", "60", "70", "80", "100")
_FIRST_BASE = 82  # in addition, if the base tree is not in the cache yet
_FIRST_ISO = 90  # in addition, if the boot ISO is not in the cache yet
_REAL_BUILDER = 600  # in addition, with osbuild-composer: for its start or a compose
_WIDTH, _BOX, _HIGH = 960, 146, 118
_STYLE = """
.box{fill:#f6f6f6;stroke:#888;stroke-width:1.2;stroke-dasharray:5 4}
.done{fill:#e8f5ec;stroke:#1b7f3b;stroke-width:1.8}
.next{fill:#eef4fb;stroke:#3a6ea5;stroke-width:2.6}
.n{fill:#3a6ea5;font-size:12.5px;font-weight:600}
.t{font-weight:600;fill:#16324f;font-size:13px}
.s{fill:#333;font-size:12px} .m{fill:#333;font-size:11px;font-family:monospace}
.a{fill:none;stroke:#3a6ea5;stroke-width:2;marker-end:url(#h)}
"""


def life_cycle(lab: Lab) -> Markup:
    """The steps of the workbook as a picture: which ones this lab has done, which is next, and the
    time and disk space that the others take on this host.

    >>> from rfe_helpers.workbook import life_cycle
    >>> life_cycle(lab)
    Image Builder ✔ → commit ✔ → look inside ✔ → serve ✔ → install ✔ → update, roll back ✔
    """
    steps = lab.state["steps"]
    following = next((number for number, _, step in LIFE_CYCLE if step not in steps), "")
    boxes, texts = [], []
    for index, (number, title, step) in enumerate(LIFE_CYCLE):
        done = step in steps
        kind = "done" if done else "next" if number == following else "box"
        sign = {"done": "✔ done", "next": "● next", "box": "○ to do"}[kind]
        cost = _cost(lab, number)
        detail = _detail(step, steps[step]) if done else ""
        boxes.append(_box(index, kind, number, title, [sign, detail if done else cost]))
        texts.append(f"{title} {sign[0]}" + ("" if done else f" ({cost})"))
    arrows = [
        f'<path class="a" d="M{_left(index) + _BOX} 59h11"/>'
        for index in range(len(LIFE_CYCLE) - 1)
    ]
    text = " → ".join(texts)
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HIGH}" width="{_WIDTH}" '
        f'height="{_HIGH}" font-family="system-ui, sans-serif"><style>{_STYLE}</style>'
        '<defs><marker id="h" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto"><path d="M0 0 8 4 0 8z" fill="#3a6ea5"/></marker></defs>'
        f'<rect width="{_WIDTH}" height="{_HIGH}" rx="10" fill="#fff"/>'
        f"{''.join(boxes)}{''.join(arrows)}</svg>"
    )
    # As a picture of its own, so that its style and marker are not those of the page.
    source = f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"
    style = "max-width: 100%; height: auto"
    picture = f'<img src="{source}" alt="{html.escape(text)}" width="{_WIDTH}" style="{style}">'
    return Markup(picture, text)


def _left(index: int) -> int:
    return 8 + index * (_BOX + 14)


def _box(index: int, kind: str, number: str, title: str, lines: list[str]) -> str:
    x = _left(index)
    texts = [("n", 32, number), ("t", 52, title), ("s", 72, lines[0]), ("m", 91, lines[1])]
    elements = "".join(
        f'<text class="{style}" x="{x + 10}" y="{y}">{html.escape(text)}</text>'
        for style, y, text in texts
    )
    return f'<rect class="{kind}" x="{x}" y="12" width="{_BOX}" height="94" rx="8"/>{elements}'


def _detail(step: str, results: dict[str, Any]) -> str:
    """The result of a step in one short line."""
    port = results.get("port") or str(results.get("url", "")).rpartition(":")[2][:-1]
    values = {
        "image-builder": results.get("backend"),
        "commit": str(results.get("commit", ""))[:16],
        "inspect": f"{results.get('packages', '?')} packages",
        "serve": f"port {port}",
        "install": results.get("machine"),
        "update": str(results.get("commit", ""))[:16],
    }
    return str(values[step] or "")


def _cost(lab: Lab, number: str) -> str:
    seconds, size_bytes = estimate(lab, number)
    return _about(seconds) + (f", {size(size_bytes).replace('.0 ', ' ')}" if size_bytes else "")


def _about(seconds: float) -> str:
    if seconds >= 90:
        return f"about {round(seconds / 60)} min"
    return f"about {max(5, round(seconds, -1)):.0f} s"


def times(lab: Lab) -> Table:
    """How long each notebook takes on this machine.

    >>> from rfe_helpers.workbook import times
    >>> times(lab)
    notebook                        on this machine  from
    ------------------------------  ---------------  --------
    00-start-here                   about ...
    ...
    """
    last = _last_runs(lab)
    rows = [
        (path.stem, _about(estimate(lab, number)[0]), "last run" if number in last else "estimate")
        for path in all_notebooks()
        if (number := number_of(path.name)) in _SECONDS
    ]
    return Table(("notebook", "on this machine", "from"), rows)


def begin(lab: Lab, number: str = "") -> None:
    """At the beginning of notebook `number`: check that it can run, say how long it takes on this
    machine, and show below each further cell what it has run. A notebook of your own has no number.

    >>> from rfe_helpers.workbook import begin
    >>> begin(lab, "30")
    This notebook takes about ... on this machine (as in its last run in this lab).

    Raises ToolMissingError with the names of all tools that are missing and the command that
    installs them, StepMissingError if a notebook that it needs was not run.
    """
    require_tools(number)
    release = lab.profile
    watch(number, release.distro if release.install.image_builder else "")
    for needed in NEEDS.get(number, ()):
        lab.step(STEPS[needed])
    if not number:
        return
    source = "as in its last run in this lab" if number in _last_runs(lab) else "an estimate"
    text = f"This notebook takes {_about(estimate(lab, number)[0])} on this machine ({source})."
    show(Markup(text, text))


def estimate(lab: Lab, number: str) -> tuple[float, int]:
    """The seconds and the bytes on disk that a notebook takes on this host, with this profile."""
    steps = [entry for entry in DISK_STEPS if entry[0].startswith(f"{number} ")]
    cached = _in_cache()
    needed = sum(size for _, place, size in steps if place != "cache" or not cached[number])
    last = _last_runs(lab)
    if number in last:
        return last[number], needed
    kvm, emulated = _SECONDS[number]
    seconds = kvm if kvm == emulated or find_accelerator() == "kvm" else emulated
    if not cached[number]:
        seconds += _FIRST_BASE if number == "20" else _FIRST_ISO
    real = number in _WITH_BUILDER and lab.profile.backend != "sandbox"
    return seconds * slowness() + (_REAL_BUILDER if real else 0), needed


def _in_cache() -> dict[str, bool]:
    """Whether the cache has what a notebook stores in it, by the notebook's number."""
    cache = cache_directory()
    cached = dict.fromkeys(_SECONDS, True)
    cached["20"] = any(cache.glob("base-*/base.tar"))
    cached["50"] = any(cache.glob("boot-*/*.iso"))
    return cached


def _last_runs(lab: Lab) -> dict[str, float]:
    """The seconds of each notebook in the last headless run of the lab in which it passed, by
    number."""
    return {
        number_of(result["name"]): float(result["seconds"])
        for path in sorted(lab.folder("runs").glob("2*/summary.json"))  # the newest last
        for result in json.loads(path.read_text())["notebooks"]
        if result["status"] == "passed"
    }
