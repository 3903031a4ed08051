"""The commit browser: packages, files with their contents, and a comparison of two commits."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import ipywidgets as widgets

from rfe_helpers.commit.commit import Commit, diff, open_commit
from rfe_helpers.commit.ostree import File
from rfe_helpers.core.progress import Say
from rfe_helpers.core.units import size
from rfe_helpers.errors import InputError
from rfe_helpers.lab.lab import Lab
from rfe_helpers.workbook.masking import mask
from rfe_helpers.workbook.show import Markup, Table, facts
from rfe_helpers.workbook.ui.parts import ROW, Panel, code, note, region, scrolling, shown

MOST_ROWS = 200
MOST_TEXT = 20_000
_SIGNS = {"directory": "▸", "link": "→", "file": " "}


class CommitBrowser(Panel):
    """Look into the commits of a lab: the downloaded ones, and the one that is served.

    For example:

        CommitBrowser(lab, artifact.path)
    """

    title = "Commit browser"
    every = 5.0

    def __init__(self, lab: Lab, source: str | Path) -> None:
        super().__init__()
        self.lab = lab
        self.source = str(source)
        self._open: dict[str, Commit] = {}
        self._sizes: dict[str, dict[str, int]] = {}
        self._directory = "/"
        self._entries: list[File] = []
        self._teach_packages()

    # actions, without widgets ------------------------------------------------------------

    def sources(self) -> dict[str, str]:
        """The sources by label: the archives in the lab, and the repository that it serves."""
        paths = sorted(
            self.lab.folder("composes").glob("*.tar"),
            key=lambda path: path.stat().st_mtime,
            reverse=True,
        )
        sources = {path.name[:8] + " " + path.name.rpartition("-")[2]: str(path) for path in paths}
        if self.source not in sources.values():
            sources[Path(self.source).name] = self.source
        if self.lab.has("serve"):
            sources["served now"] = f"{self.lab.step('serve')['url']}repo/"
        return sources

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
        wide = {"width": "26em"}
        self._first = widgets.Dropdown(description="Commit", layout=wide)
        self._second = widgets.Dropdown(description="Second", layout=wide)
        self._about = region("about")
        self._filter = widgets.Text(placeholder="part of a name")
        self._order = widgets.Dropdown(options=["name", "size"], description="sorted by")
        self._order.layout.width = "14em"
        self._packages = region("packages")
        self._path = region("path")
        self._list = widgets.Select(rows=14, layout={"width": "46%", "min_width": "20em"})
        self._content = region("content")
        self._difference = region("difference")
        for widget in (self._filter, self._order):
            widget.observe(lambda _: self.attempt(self._show_packages), "value")
        self._first.observe(lambda _: self.attempt(self._show), "value")
        view = scrolling(self._content, "17em")
        view.layout.width = "52%"
        measure = self.button("Measure", self._measure, "sizes of packages; unpacks the commit")
        packages = [
            widgets.HBox([self._filter, self._order, measure], layout=ROW),
            scrolling(self._packages),
        ]
        read = self.button("Open", self._enter, "enter the directory, or show the file")
        up = self.button("Up", self._up, "to the directory above")
        files = [
            widgets.HBox([read, up, self._path], layout=ROW),
            widgets.HBox([self._list, view], layout={**ROW, "align_items": "flex-start"}),
        ]
        compare = self.button("Compare", self._compare, "differences from the first commit")
        two = [widgets.HBox([self._second, compare], layout=ROW), scrolling(self._difference)]
        pages = [
            widgets.VBox(page, layout={"overflow": "visible"}) for page in (packages, files, two)
        ]
        tabs = widgets.Tab(pages, titles=["Packages", "Files", "Two commits"])
        return [widgets.HBox([self._first, self._about], layout=ROW), tabs]

    def refresh(self) -> None:
        sources = list(self.sources().items())
        for dropdown, preferred in ((self._first, self.source), (self._second, "")):
            if list(dropdown.options) != sources:
                chosen = dropdown.value or preferred
                dropdown.options = sources
                if chosen in [source for _, source in sources]:
                    dropdown.value = chosen

    def _show(self) -> None:
        if self._first.value is None:
            return
        commit = self.commit(self._first.value)
        version = html.escape(commit.info.version)
        self._about.value = (
            f"<code>{commit.id[:12]}</code> {version}, ref {html.escape(commit.ref)}"
        )
        self._directory, self._entries = "/", []
        self._list.options = []
        self._path.value = "Press Open to read the tree; the archive is unpacked once"
        self._show_packages()

    def _show_packages(self) -> None:
        if self._order.value == "size" and self._first.value not in self._sizes:
            self._measure()
        table = self.packages(self._first.value, self._filter.value, self._order.value)
        self._packages.value = shown(table)

    # buttons ----------------------------------------------------------------------------------

    def _measure(self) -> None:
        source = self._first.value
        self.teach("commit.size_by_package()", "")

        def job(on_progress: Say) -> str:
            self._sizes[source] = self.commit(source).size_by_package()
            table = self.packages(source, self._filter.value, self._order.value)
            self._packages.value = shown(table)
            return f"{size(sum(self._sizes[source].values()))} in all"

        self.work("Unpacking and measuring", job)

    def _enter(self) -> None:
        source = self._first.value
        chosen = self._list.value
        if chosen is None or not self._entries:
            self.work("Reading the tree", lambda on_progress: self._list_directory(source, "/"))
            return
        file = self._entries[chosen]
        self.say("")
        if file.kind == "directory":
            self._list_directory(source, file.path)
            return
        self.teach(
            f"commit.repository.read(commit.id, {file.path!r})",
            f"ostree --repo=repo cat {self.lab.profile.ostree.ref} {file.path}",
        )
        self._content.value = code(self.content(source, file)).html

    def _up(self) -> None:
        if self._entries:
            self.say("")
            self._list_directory(self._first.value, str(PurePosixPath(self._directory).parent))

    def _list_directory(self, source: str, path: str) -> str:
        entries = self.directory(source, path)
        self._directory, self._entries = path, [file for file, _ in entries]
        self._list.options = [
            (f"{_SIGNS.get(file.kind, '?')} {PurePosixPath(file.path).name}   {size(number)}", i)
            for i, (file, number) in enumerate(entries)
        ]
        self._path.value = f"<code>{html.escape(path)}</code>, {len(entries)} entries"
        self.teach(
            f"[file for file in commit.files() if file.path.startswith({path!r})]",
            f"ostree --repo=repo ls {self.lab.profile.ostree.ref} {path}",
        )
        return f"{len(entries)} {'entry' if len(entries) == 1 else 'entries'} in {path}"

    def _compare(self) -> None:
        first, second = self._first.value, self._second.value
        if first == second:
            raise InputError("both are the same commit", remedy="choose another one under Second")
        self.teach(
            "diff(open_commit(first), open_commit(second))", f"rfe commit diff {first} {second}"
        )

        def job(on_progress: Say) -> str:
            table = self.compare(first, second)
            self._difference.value = shown(table)
            return table.caption

        self.work("Comparing", job)

    def _teach_packages(self) -> None:
        self.teach("open_commit(artifact).packages()", f"rfe commit packages {self.source}")


def _size(sizes: dict[str, int], name: str) -> str | None:
    return size(sizes[name]) if name in sizes else None


def _packages(number: int) -> str:
    return "1 package" if number == 1 else f"{number} packages"
