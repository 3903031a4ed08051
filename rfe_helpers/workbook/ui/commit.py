"""The commit browser: packages, files with their contents, and a comparison of two commits."""

from __future__ import annotations

import html
import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import ipywidgets as widgets

from rfe_helpers.commit.commit import Commit, diff, open_commit
from rfe_helpers.commit.listing import File
from rfe_helpers.core.masking import mask
from rfe_helpers.core.progress import Say
from rfe_helpers.core.units import size
from rfe_helpers.errors import CommitError, InputError
from rfe_helpers.lab.lab import Lab
from rfe_helpers.workbook.show import Markup, Table, facts
from rfe_helpers.workbook.ui import lines
from rfe_helpers.workbook.ui.parts import ROW, Panel, code, note, refill, region, scrolling, shown

MOST_ROWS = 200
MOST_TEXT = 20_000
MOST_BUTTONS = 150
_SIGNS = {"link": "→ ", "file": ""}


class CommitBrowser(Panel):
    """Look into the commits of a lab: the downloaded ones, and the one that is served.

    For example:

    >>> from rfe_helpers.workbook import CommitBrowser
    >>> browser = CommitBrowser(lab, artifact.path)
    >>> browser.packages(str(artifact.path), "tmux")
    1 package
    package  version  ...
    """

    title = "Commit browser"
    every = 5.0

    def __init__(self, lab: Lab, source: str | Path) -> None:
        super().__init__()
        self.lab = lab
        self.source = str(source)
        self._open: dict[str, Commit] = {}
        self._labels: dict[str, str] = {}
        self._sizes: dict[str, dict[str, int]] = {}
        self._directory = "/"
        self._files: list[File] = []
        self.teach(
            lines.commit(self.source, "", "commit.packages()"),
            f"rfe commit packages {shlex.quote(self.source)}",
        )

    # actions, without widgets ------------------------------------------------------------

    def sources(self) -> dict[str, str]:
        """The sources by label: the archives in the lab, and the repository that it serves."""
        paths = sorted(
            self.lab.folder("composes").glob("*.tar"),
            key=lambda path: path.stat().st_mtime,
            reverse=True,
        )
        sources = [str(path) for path in paths]
        if self.source not in sources:
            sources.append(self.source)
        if self.lab.has("serve"):
            sources.append(f"{self.lab.step('serve')['url']}repo/")
        labels = [self.label(source) for source in sources]
        several = Counter(labels)
        unique = [
            f"{label}, {Path(source).name[:8]}" if several[label] > 1 else label
            for label, source in zip(labels, sources, strict=True)
        ]
        return dict(zip(unique, sources, strict=True))

    def label(self, source: str) -> str:
        """The date and the version of the commit in a source, and what kind of source it is."""
        if source.startswith("http"):
            return "served now"
        if source not in self._labels:
            kind = Path(source).name.rpartition("-")[2]
            try:
                info = self.commit(source).info
                date = f"{info.timestamp.astimezone():%Y-%m-%d %H:%M}"
                self._labels[source] = ", ".join(filter(None, [date, info.version, kind]))
            except CommitError:
                return f"unreadable, {kind}"
        return self._labels[source]

    def commit(self, source: str) -> Commit:
        """The commit of a source; an archive is opened once, a repository each time, as it may
        change."""
        if source.startswith("http"):
            return open_commit(source, self.lab.profile.ostree.ref)
        if source not in self._open:
            self._open[source] = open_commit(source)
        return self._open[source]

    def packages(self, source: str, pattern: str = "", order: str = "name") -> Table:
        """The packages whose name contains `pattern`, by name, or by size if it was measured."""
        commit = self.commit(source)
        sizes = self._sizes.get(source, {})
        packages = [package for package in commit.packages() if pattern.strip() in package.name]
        if order == "size":
            packages.sort(key=lambda package: -sizes.get(package.name, 0))
        rows = [
            (package.name, package.evr, package.arch, _size(sizes, package.name))
            for package in packages
        ]
        more = f", the first {MOST_ROWS}" if len(rows) > MOST_ROWS else ""
        caption = f"{_packages(len(rows))}{more}"
        return Table(("package", "version", "architecture", "size"), rows[:MOST_ROWS], caption)

    def directory(self, source: str, path: str) -> list[tuple[File, int]]:
        """The entries of a directory, directories first, each with the bytes in or below it."""
        files = self.commit(source).files()
        prefix = path.rstrip("/") + "/"
        below: dict[str, int] = {}
        entries: dict[str, File] = {}
        for file in files:
            if not file.path.startswith(prefix) or file.path == prefix:
                continue
            name = file.path[len(prefix) :].partition("/")[0]
            below[name] = below.get(name, 0) + (file.size if file.kind == "file" else 0)
            if file.path == prefix + name:
                entries[name] = file
        ordered = sorted(entries, key=lambda name: (entries[name].kind != "directory", name))
        return [(entries[name], below[name]) for name in ordered]

    def content(self, source: str, file: File) -> str:
        """The beginning of a text file with secrets hidden, or a description of another file."""
        if file.kind == "link":
            return f"a link to {file.target}"
        if file.size > 1 << 20:
            return f"{size(file.size)}: too large to show"
        text = self.commit(source).repository.read(self.commit(source).id, file.path)
        if "\0" in text or "\ufffd" in text:
            return f"{size(file.size)} of binary data"
        return mask(text[:MOST_TEXT])

    def compare(self, first: str, second: str) -> Table:
        """The packages that differ between two sources, and the numbers of such files."""
        difference = diff(self.commit(first), self.commit(second))
        rows = [("only in the second", str(package)) for package in difference.added]
        rows += [("only in the first", str(package)) for package in difference.removed]
        rows += [("changed", str(change)) for change in difference.changed]
        words = ""
        if difference.files is not None:
            files = difference.files
            sides = (files.added, files.removed, files.modified)
            words = ", ".join(
                f"{len(paths)} {word}"
                for paths, word in zip(sides, ("added", "removed", "modified"), strict=True)
            )
        return Table(
            ("", "package"),
            rows[:MOST_ROWS],
            f"{_packages(len(rows))} not the same; files: {words}",
        )

    # display ----------------------------------------------------------------------------------

    def twin_parts(self) -> Sequence[Markup | Table]:
        packages = self.packages(self.source)
        first = Table(packages.columns[:3], [row[:3] for row in packages.rows[:8]])
        return [self.about(self.source), note(f"{packages.caption}, the first 8 here"), first]

    def about(self, source: str) -> Table:
        """The ref, id and version of a commit."""
        commit = self.commit(source)
        return facts({"Ref": commit.ref, "Commit": commit.id, "Version": commit.info.version})

    def build(self) -> Sequence[Any]:
        wide = {"width": "42em"}
        self._first = widgets.Dropdown(description="Commit", layout=wide)
        self._second = widgets.Dropdown(description="Second", layout=wide)
        self._about = region("about")
        for widget in (self._first, self._second):
            widget.observe(lambda _: self.attempt(self._forget_difference), "value")
        self._first.observe(lambda _: self.attempt(self._show), "value")
        pages = [
            widgets.VBox(page, layout={"overflow": "visible"})
            for page in (self._build_packages(), self._build_files(), self._build_difference())
        ]
        tabs = widgets.Tab(pages, titles=["Packages", "Files", "Two commits"])
        return [widgets.HBox([self._first, self._about], layout=ROW), tabs]

    def _build_packages(self) -> list[Any]:
        self._filter = widgets.Text(placeholder="part of a name")
        self._order = widgets.Dropdown(options=["name", "size"], description="sorted by")
        self._order.layout.width = "14em"
        self._packages = region("packages")
        for widget in (self._filter, self._order):
            widget.observe(lambda _: self.attempt(self._show_packages), "value")
        measure = self.button("Measure", self._measure, "sizes of packages; unpacks the commit")
        return [
            widgets.HBox([self._filter, self._order, measure], layout=ROW),
            scrolling(self._packages),
        ]

    def _build_files(self) -> list[Any]:
        self._path = widgets.Text(value="/", description="Path", continuous_update=False)
        self._path.observe(lambda _: self.attempt(self._follow), "value")
        self._where = region("path")
        self._directories = widgets.HBox(layout=ROW)
        self._list = widgets.Select(
            description="Files",
            rows=12,
            layout={"width": "46%", "min_width": "20em"},
            style={"description_width": "initial"},
        )
        self._list.observe(lambda _: self.attempt(self._read), "value")
        self._content = region("content")
        view = scrolling(self._content, "17em")
        view.layout.width = "52%"
        go = self.button("Open", self._enter, "the directory or file at this path")
        up = self.button("Up", self._up, "to the directory above")
        return [
            widgets.HBox([self._path, go, up, self._where], layout=ROW),
            scrolling(self._directories, "9em"),
            widgets.HBox([self._list, view], layout={**ROW, "align_items": "flex-start"}),
        ]

    def _build_difference(self) -> list[Any]:
        self._difference = region("difference")
        compare = self.button("Compare", self._compare, "differences from the first commit")
        return [widgets.HBox([self._second, compare], layout=ROW), scrolling(self._difference)]

    def refresh(self) -> None:
        sources = list(self.sources().items())
        for dropdown, preferred in ((self._first, self.source), (self._second, "")):
            if list(dropdown.options) != sources:
                chosen = dropdown.value or preferred
                dropdown.options = sources
                if chosen in [source for _, source in sources]:
                    dropdown.value = chosen
        self.now_shows((self._first.value, self._second.value))

    def _show(self) -> None:
        commit = self.commit(self._chosen())
        version = html.escape(commit.info.version)
        self._about.value = (
            f"<code>{commit.id[:12]}</code> {version}, ref {html.escape(commit.ref)}"
        )
        self._directory, self._files = "/", []
        self._path.value = "/"
        self._list.options = []
        refill(self._directories, [])
        self._content.value = ""
        self._where.value = "Press Open to read the tree; the archive is unpacked once"
        self._show_packages()

    def _show_packages(self) -> None:
        source = self._chosen()
        if self._order.value == "size" and source not in self._sizes:
            self._measure()
        table = self.packages(source, self._filter.value, self._order.value)
        self._packages.value = shown(table)

    def _forget_difference(self) -> None:
        self._difference.value = ""

    # buttons ----------------------------------------------------------------------------------

    def _chosen(self) -> str:
        """The source of the first commit. Raises InputError if there is none."""
        if not self._first.value:
            raise InputError("there is no commit yet", remedy="download one with notebook 20")
        return str(self._first.value)

    def _measure(self) -> None:
        source = self._chosen()
        self.teach(lines.commit(source, self._ref(source), "commit.size_by_package()"), "")

        def job(on_progress: Say) -> str:
            self._sizes[source] = self.commit(source).size_by_package()
            table = self.packages(source, self._filter.value, self._order.value)
            self._packages.value = shown(table)
            return f"{size(sum(self._sizes[source].values()))} in all"

        self.work("Unpacking and measuring", job)

    def _enter(self) -> None:
        """Go to the path in the field: into a directory, or to a file in its directory."""
        source = self._chosen()
        path = PurePosixPath("/", self._path.value.strip() or "/")

        def job(on_progress: Say) -> str:
            files = {file.path: file for file in self.commit(source).files()}
            file = files.get(str(path))
            if file is None and str(path) != "/":
                raise InputError(f"the commit has no {path}", remedy="see the names in the list")
            if file is None or file.kind == "directory":
                return self._list_directory(source, str(path))
            answer = self._list_directory(source, str(path.parent))
            self._list.value = self._files.index(file)
            return answer

        self.work("Reading the tree", job)

    def _follow(self) -> None:
        """Go to a path that has been typed."""
        if self._path.value != self._directory:
            self._enter()

    def _go(self, path: str) -> None:
        """Into a directory, in a tree that has been read."""
        self.say("")
        self._list_directory(self._chosen(), path)

    def _up(self) -> None:
        self._path.value = str(PurePosixPath(self._directory).parent)

    def _read(self) -> None:
        """Show the file that is chosen in the list."""
        if self._list.value is None or self._list.value >= len(self._files):
            return
        source, file = self._chosen(), self._files[self._list.value]
        commit = self.commit(source)
        self.teach(
            lines.commit(
                source,
                self._ref(source),
                f"print(commit.repository.read(commit.id, {file.path!r}))",
            ),
            self._ostree(commit, "cat", file.path),
        )
        self._content.value = code(self.content(source, file)).html

    def _list_directory(self, source: str, path: str) -> str:
        commit = self.commit(source)
        entries = self.directory(source, path)
        directories = [(file, number) for file, number in entries if file.kind == "directory"]
        others = [(file, number) for file, number in entries if file.kind != "directory"]
        self._directory, self._files = path, []  # none: filling the list is not choosing
        refill(self._directories, [self._door(*entry) for entry in directories[:MOST_BUTTONS]])
        self._list.options = [
            (f"{_SIGNS.get(file.kind, '? ')}{PurePosixPath(file.path).name}   {size(number)}", i)
            for i, (file, number) in enumerate(others)
        ]
        self._list.index = None
        self._files = [file for file, _ in others]
        self._content.value = ""
        self._path.value = path
        more = len(directories) - MOST_BUTTONS
        words = f", {more} directories more: type their path" if more > 0 else ""
        self._where.value = f"<code>{html.escape(path)}</code>, {len(entries)} entries{words}"
        below = path.rstrip("/") + "/"
        self.teach(
            lines.commit(
                source,
                self._ref(source),
                f"[file for file in commit.files() if file.path.startswith({below!r})]",
            ),
            self._ostree(commit, "ls", path),
        )
        return f"{len(entries)} {'entry' if len(entries) == 1 else 'entries'} in {path}"

    def _door(self, directory: File, number: int) -> Any:
        name = PurePosixPath(directory.path).name
        tip = f"open {directory.path}, {size(number)}"
        return self.button(f"▸ {name}", lambda: self._go(directory.path), tip)

    def _ostree(self, commit: Commit, command: str, path: str) -> str:
        """A command of ostree for the repository that was unpacked for this panel."""
        repository = f"--repo={commit.repository.path}"
        return shlex.join(["ostree", repository, command, commit.id, path])

    def _ref(self, source: str) -> str:
        """The ref to open a source with: a repository has several."""
        return self.lab.profile.ostree.ref if source.startswith("http") else ""

    def _compare(self) -> None:
        first, second = self._chosen(), self._second.value
        if first == second:
            raise InputError("both are the same commit", remedy="choose another one under Second")
        if not second:
            raise InputError("there is no second commit", remedy="choose one under Second")
        opened = [
            f"open_commit({source!r}{f', {ref!r}' if (ref := self._ref(source)) else ''})"
            for source in (first, second)
        ]
        self.teach(
            "from rfe_helpers.commit import diff, open_commit\n" + f"diff({', '.join(opened)})",
            shlex.join(["rfe", "commit", "diff", first, second]),
        )

        def job(on_progress: Say) -> str:
            table = self.compare(first, second)
            self._difference.value = shown(table)
            return table.caption

        self.work("Comparing", job)


def _size(sizes: dict[str, int], name: str) -> str | None:
    return size(sizes[name]) if name in sizes else None


def _packages(number: int) -> str:
    return "1 package" if number == 1 else f"{number} packages"
