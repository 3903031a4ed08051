"""What was run: the commands below each cell, and a whole run as a shell script.

Both are made of the journal (core/journal.py). A request to Image Builder is shown as the
`composer-cli` line that does the same, and as the `curl` line that sends it; below cells also as
the line of `image-builder`, where the lab's release has it.
"""

from __future__ import annotations

import html
import json
import os
import re
import shlex
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from IPython.core.getipython import get_ipython

from rfe_helpers.build.composer_cli import composer_cli, curl, document_name
from rfe_helpers.build.image_builder import image_builder
from rfe_helpers.core import journal, memory
from rfe_helpers.core.journal import Place, Record
from rfe_helpers.lab.lab import Lab
from rfe_helpers.workbook.chapters import number_of
from rfe_helpers.workbook.notebooks import all_notebooks
from rfe_helpers.workbook.show import Markup, display, in_notebook

# Arguments that only ask a program who it is.
_PROBES = {"--version", "-version", "-V", "-v", "version"}
# How far back a request or a failed attempt is looked for that is only repeated.
_NEAR = 3


@dataclass(frozen=True)
class ShownRecord:
    """An entry of the journal, and how often it was repeated."""

    entry: Record
    times: int = 1

    @property
    def comment(self) -> str:
        """Its time, what came of it if that was a failure, and what a person would type instead."""
        entry = self.entry
        parts = [f"{entry.seconds:.1f} s"] if entry.seconds >= 0.05 else []
        parts += [f"{self.times} times"] if self.times > 1 else []
        parts += ["done in Python, as this does"] if entry.shell else []
        parts += ["keeps running"] if _runs_on(entry) else []
        if _has_failed(entry):
            parts.append(f"status {entry.status}" if entry.status else "ended by force")
        parts += ["its input is not shown"] if entry.stdin else []
        # On one line: a second one would not be a comment.
        return " ".join(": ".join(filter(None, [", ".join(parts), _by_hand(entry)])).split())


def _by_hand(entry: Record) -> str:
    """What a person would type in place of a long command line, "" for the line itself."""
    if entry.request:
        return composer_cli(entry.request)
    if entry.argv[:1] == ("ssh",) and len(entry.argv) > 2 and "@" in entry.argv[-2]:
        return f"on {entry.argv[-2].partition('@')[2]}, {entry.argv[-1]}"
    return ""


def steps(entries: Iterable[Record]) -> list[ShownRecord]:
    """What a reader wants to see of a journal, in order: without questions for a version, and with
    what was repeated while waiting only once."""
    kept: list[ShownRecord] = []
    for entry in entries:
        if entry.argv and _PROBES.intersection(entry.argv[1:2]):
            continue
        near = range(max(0, len(kept) - _NEAR), len(kept))
        same = next((i for i in near if _repeats(kept[i].entry, entry)), None)
        if same is None:
            kept.append(ShownRecord(entry))
        else:
            kept[same] = ShownRecord(entry, kept[same].times + 1)
    return kept


def _repeats(earlier: Record, later: Record) -> bool:
    """Whether an entry only asks again, or tries again what has failed."""
    if later.request:
        return earlier.request == later.request and later.request.method == "GET"
    tried = (earlier.argv, earlier.env) == (later.argv, later.env)
    return tried and _has_failed(earlier)


def below(entries: Iterable[Record], distro: str = "") -> Markup:
    """What was run as a folded list that can be pasted into a shell; empty for nothing. With a
    `distro`, the commands of image-builder for it are named as well."""
    shown = steps(entries)
    if not shown:
        return Markup("", "")
    lines = "\n".join(text for step in shown for text in _plain(step, distro))
    seconds = sum(step.entry.seconds for step in shown)
    number = len(shown)
    title = f"What was run: {number} command{'s' if number != 1 else ''}, {seconds:.1f} s"
    return Markup(
        f'<details class="rfe-commands"><summary>{title}</summary>'
        f'<pre style="white-space: pre-wrap; overflow-wrap: anywhere; font-size: .9em">'
        f"{html.escape(lines)}</pre></details>",
        f"{title}\n{lines}",
    )


def _plain(step: ShownRecord, distro: str) -> Iterator[str]:
    """The lines of a step, as they were run."""
    if step.comment:
        yield f"# {step.comment}"
    if distro and step.entry.request and (line := image_builder(step.entry.request, distro)):
        yield f"# without the service: {' '.join(line.split())}"
    if step.entry.file:
        yield _heredoc(shlex.quote(step.entry.file), step.entry.text, quoted=True)
        return
    request = step.entry.request
    if request and (name := document_name(request)):
        yield _heredoc(name, request.body, quoted=True)
    yield _line(step.entry) + (" &" if _runs_on(step.entry) else "")


def _line(entry: Record) -> str:
    """The command, with its variables and directory, or the one that sends the request."""
    if entry.request:
        return curl(entry.request)
    if entry.shell:
        return entry.shell
    variables = [f"{name}={shlex.quote(value)}" for name, value in entry.env.items()]
    line = " ".join([*variables, shlex.join(entry.argv)])
    return f"(cd {shlex.quote(entry.cwd)} && {line})" if entry.cwd else line


def _runs_on(entry: Record) -> bool:
    return bool(entry.argv) and entry.status is None and not entry.seconds


def _has_failed(entry: Record) -> bool:
    return bool(entry.argv) and entry.status != 0 and not _runs_on(entry)


def _heredoc(target: str, text: str, *, quoted: bool) -> str:
    """A command that writes `text` to the `target`, a word of a shell."""
    end = "EOF"
    while end in text.splitlines():
        end += "F"
    word = f"'{end}'" if quoted else end
    return f"cat > {target} <<{word}\n{text.rstrip(chr(10))}\n{end}"


# below cells ----------------------------------------------------------------------------------


def watch(number: str, distro: str = "") -> None:
    """From now on, show below each cell of notebook `number` what it has run (see `below`). Outside
    of a kernel only the journal says it."""
    watcher = _Watcher(number, distro)
    journal.set_place(watcher.place)
    if in_notebook():
        events: Any = get_ipython().events  # type: ignore[union-attr]
        for earlier in [each for each in events.callbacks["post_run_cell"] if _is_ours(each)]:
            events.unregister("post_run_cell", earlier)
            events.unregister("pre_run_cell", earlier.__self__.before_cell)
        events.register("pre_run_cell", watcher.before_cell)
        events.register("post_run_cell", watcher.after_cell)


def _is_ours(callback: Any) -> bool:
    return isinstance(getattr(callback, "__self__", None), _Watcher)


class _Watcher:
    """Notes the section of each cell in the journal, and shows what the cell has run."""

    def __init__(self, number: str, distro: str) -> None:
        self.distro = distro
        self.began = self.at = time.time()
        self.number = number
        self._sections = sections(number)
        self.section = next(iter(self._sections.values()), "")

    @property
    def place(self) -> Place:
        return Place(self.number, round(self.began, 3), self.section)

    def before_cell(self, info: Any) -> None:
        self.at = time.time()
        self.section = self._sections.get(_normal(info.raw_cell or ""), self.section)
        journal.set_place(self.place)

    def after_cell(self, _: Any) -> None:
        shown = below(journal.since(self.at, self.section), self.distro)
        if shown.text:
            display(shown)


def sections(number: str) -> dict[str, str]:
    """The heading above each code cell of a notebook, by the text of the cell."""
    headings = {}
    for path in all_notebooks():
        heading = ""
        if number_of(path.name) == number:
            for cell in json.loads(path.read_text())["cells"]:
                text = "".join(cell["source"])
                if cell["cell_type"] == "code":
                    headings[_normal(text)] = heading
                elif titles := re.findall(r"(?m)^#+ (.+)$", text):
                    heading = titles[-1]
    return headings


def _normal(source: str) -> str:
    return source.strip()


# scripts --------------------------------------------------------------------------------------


def last_runs(entries: Sequence[Record], numbers: Iterable[str] = ()) -> list[Record]:
    """The entries of the last run of each notebook, or of those with these `numbers`."""
    chosen = set(numbers)
    places = [entry.place for entry in entries if entry.place and entry.place.notebook]
    last = {place.notebook: place.began for place in sorted(places, key=lambda p: p.began)}
    return [
        entry
        for entry in entries
        if entry.place
        and entry.place.began == last.get(entry.place.notebook)
        and (not chosen or entry.place.notebook in chosen)
    ]


def script(lab: Lab, entries: Iterable[Record]) -> str:
    """Entries of a lab's journal as a script that does the same in another directory."""
    results = lab.state["steps"]
    port = str(results.get("serve", {}).get("url", "")).rpartition(":")[2].rstrip("/")
    socket = str(results.get("image-builder", {}).get("socket", ""))
    return Script(
        [
            Variable("LAB", str(lab.directory), "$PWD/lab"),
            Variable("SOCKET", socket, "/run/weldr/api.socket"),
            Variable("PORT", port, port),
            Variable("ID", lab.id, "by-hand"),
        ]
    ).text(entries)


# A file in a directory below one that a variable stands for: the variable, and the directory.
_PATH = re.compile(r"""(\$\{(?:LAB|SCRATCH)\})"'?((?:/[\w.+-]+)+)/[\w.+-]+""")
_HEADER = """\
#!/bin/bash
# What the workbook ran, as commands. Lines that begin with # were not needed again: they say what
# was run otherwise, or need an input of yours.
set -eu
SCRATCH=$(mktemp -d)
trap 'rm -rf "$SCRATCH"' EXIT
"""


@dataclass(frozen=True)
class Variable:
    """A word of a run that differs elsewhere, and what it is by default in a script."""

    name: str
    word: str
    default: str


class Script:
    """A run as a shell script.

        lab = Variable("LAB", "/home/anna/rfe-lab", "$PWD/lab")
        print(Script([lab]).text(journal.read(path)))

    The ids of composes and commits become variables as well; they get their values from the
    commands that gave them in the run.
    """

    def __init__(self, variables: Iterable[Variable]) -> None:
        self._variables = [each for each in variables if each.word]
        scratch = (os.environ.get("TMPDIR") or memory.DISK, memory.SHARED)
        self._words = {f"{place}/rfe-": ("SCRATCH", "/rfe-") for place in scratch}
        self._words |= {each.word: (each.name, "") for each in self._variables}
        self._directories: set[str] = set()
        self._numbers: dict[str, int] = {}

    def text(self, entries: Iterable[Record]) -> str:
        """The whole script."""
        settings = [f"{each.name}=${{{each.name}:-{each.default}}}" for each in self._variables]
        lines = [*settings, 'mkdir -p "$LAB"']
        place = None
        for step in steps(entries):
            if step.entry.place and step.entry.place != place:
                place = step.entry.place
                lines += ["", f"# {place.notebook}: {place.section}"]
            lines += self._lines(step)
        return _HEADER + "\n".join(lines) + "\n"

    def _lines(self, step: ShownRecord) -> Iterator[str]:
        entry = step.entry
        if step.comment:
            yield f"# {self._filled(step.comment, quoted=False)}"
        if entry.file:
            yield from self._file(entry.file, entry.text)
            return
        if entry.request and (name := document_name(entry.request)):
            yield from self._file(name, entry.request.body)
        line = self._filled(_line(entry))
        if entry.argv:
            yield from self._parents(line)
        if entry.stdin or entry.argv[:1] == (sys.executable,):
            yield "# " + line.replace("\n", "\n# ")
        elif _runs_on(entry):
            yield f'{line} >> "$LAB"/background.log 2>&1 &'
        elif _has_failed(entry):
            yield f"{line} || true"
        elif step.times > 1 and entry.argv:
            yield f"until {line}; do sleep 2; done"
        elif _waits(entry):
            yield f"until {line} | grep -qE 'FINISHED|FAILED'; do sleep 2; done"
        elif entry.value and entry.value not in self._words:
            yield self._assigned(entry, line)
        else:
            yield line

    def _assigned(self, entry: Record, line: str) -> str:
        """The line with its id in a variable, which stands for it from now on."""
        kind = "COMPOSE" if entry.request else "COMMIT"
        self._numbers[kind] = self._numbers.get(kind, 0) + 1
        name = f"{kind}_{self._numbers[kind]}"
        self._words[entry.value] = (name, "")
        build_id = """ | sed -n 's/.*"build_id": *"\\([^"]*\\)".*/\\1/p'""" if entry.request else ""
        return f"{name}=$({line}{build_id})"

    def _file(self, path: str, text: str) -> Iterator[str]:
        target = self._filled(shlex.quote(path))
        yield from self._parents(target)
        escaped = re.sub(r"([\\$`])", r"\\\1", text.rstrip("\n"))
        yield _heredoc(target, self._filled(escaped, quoted=False), quoted=False)

    def _filled(self, text: str, *, quoted: bool = True) -> str:
        """The text with variables in place of their words; in a `quoted` command line they stand
        outside of single quotes."""
        ordered = sorted(self._words, key=len, reverse=True)
        pattern = "|".join(
            rf"\b{word}\b" if word.isdigit() else re.escape(word) for word in ordered
        )
        pieces, end, inside = [], 0, False
        for match in re.finditer(pattern, text):
            between = text[end : match.start()]
            # shlex writes a quote in a word as '"'"'.
            inside ^= bool(between.replace('"\'"', "").count("'") % 2)
            name, rest = self._words[match[0]]
            variable = f'"${{{name}}}"' if quoted else f"${{{name}}}"
            pieces += [between, f"'{variable}'" if inside and quoted else variable, rest]
            end = match.end()
        return "".join([*pieces, text[end:]])

    def _parents(self, line: str) -> Iterator[str]:
        """Commands that make the directories of the files that a line names."""
        for variable, path in _PATH.findall(line):
            directory = f'"{variable}"{path}'
            if directory not in self._directories:
                self._directories.add(directory)
                yield f"mkdir -p {directory}"


def _waits(entry: Record) -> bool:
    """Whether a request asks how far one compose is."""
    return entry.request is not None and bool(
        re.search(r"/compose/status/[0-9a-f-]{36}$", entry.request.path)
    )
