"""The blueprint editor: packages, customizations, history.

It edits the draft in Image Builder's workspace, so that nothing is lost with the kernel; a compose
uses the blueprint that was pushed last.
"""

from __future__ import annotations

import contextlib
import difflib
import html
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import ipywidgets as widgets

from rfe_helpers.build.answers import BlueprintChange, PackageInfo
from rfe_helpers.build.blueprint import Blueprint, PackageSpec, to_toml
from rfe_helpers.build.client import Client
from rfe_helpers.build.linter import lint
from rfe_helpers.commit.ostree import Package
from rfe_helpers.core.progress import Say
from rfe_helpers.errors import ApiError, RfeError
from rfe_helpers.lab.lab import Lab
from rfe_helpers.workbook.show import Markup, Table
from rfe_helpers.workbook.ui.parts import ROW, Panel, code, note, region, scrolling, shown

MOST_RESULTS = 8


@dataclass(frozen=True)
class Field:
    """A customization in the form: its path in the blueprint; `words` if it is a list of words."""

    label: str
    path: tuple[str | int, ...]
    words: bool = False
    example: str = ""


FORM = (
    Field("Host name", ("hostname",), example="edge-1"),
    Field("Time zone", ("timezone", "timezone"), example="Europe/Berlin"),
    Field("Languages", ("locale", "languages"), words=True, example="C.UTF-8"),
    Field("Keyboard", ("locale", "keyboard"), example="us"),
    Field("Kernel arguments", ("kernel", "append"), example="quiet"),
    Field("Services on", ("services", "enabled"), words=True, example="chronyd.service"),
    Field("Services off", ("services", "disabled"), words=True),
    Field("Open ports", ("firewall", "ports"), words=True, example="443:tcp"),
    Field("User", ("user", 0, "name"), example="core"),
    Field("Its SSH key", ("user", 0, "key"), example="ssh-ed25519 AAAA… me"),
)


class BlueprintEditor(Panel):
    """Edit the blueprint `name` of an Image Builder, at first an empty one if it does not exist.

    For example:

        BlueprintEditor(lab, build.connect(lab), "edge")
    """

    title = "Blueprint editor"

    def __init__(self, lab: Lab, client: Client, name: str) -> None:
        super().__init__()
        self.lab = lab
        self.client = client
        self.name = name
        self.solved: tuple[Package, ...] = ()  # the packages of the draft with dependencies
        self._shown: Blueprint | None = None
        self._changes: tuple[BlueprintChange, ...] = ()
        self._stale = False
        self._teach_push()

    # actions, without widgets ------------------------------------------------------------

    @property
    def draft(self) -> Blueprint:
        """The blueprint in the workspace, or else the one that was pushed last."""
        try:
            return self.client.blueprint(self.name)
        except ApiError as error:
            if error.id == "UnknownBlueprint":
                return Blueprint(self.name, version="0.0.1")
            raise

    def change(self, **fields: Any) -> Blueprint:
        """Change fields of the draft; returns the new draft."""
        draft = replace(self.draft, **fields)
        self.client.push_to_workspace(draft)
        return draft

    def customize(self, field: Field, text: str) -> Blueprint:
        """Set one customization of the draft; "" removes it. Returns the new draft."""
        value: Any = text.split() if field.words else text.strip()
        return self.change(customizations=changed(self.draft.customizations, field.path, value))

    def search(self, pattern: str) -> tuple[PackageInfo, ...]:
        """The first MOST_RESULTS packages whose name matches; a pattern without * matches anywhere
        in a name, and exact matches come first."""
        word = pattern.strip()
        if not word:
            return ()
        matches = self.client.search(_glob(word))
        names = sorted(matches, key=lambda name: (name != word, not name.startswith(word), name))
        packages = self.client.package_info(*names[:MOST_RESULTS]) if names else ()
        return tuple(sorted(packages, key=lambda info: names.index(info.name)))

    def remarks(self, draft: Blueprint) -> Markup:
        """The linter's findings for this release, with their remedies."""
        findings = lint(draft, self.lab.profile)
        if not findings:
            return note("✔ no problems are known with it")
        lines = [f"! {each.where}: {each.message}. To do: {each.remedy}" for each in findings]
        return Markup(
            "".join(f"<div>{html.escape(line)}</div>" for line in lines), "\n".join(lines)
        )

    def push(self) -> Blueprint:
        """Push the draft, which becomes a new entry of the history; returns it."""
        return self.client.push(self.draft)

    def discard(self) -> None:
        """Return to the blueprint that was pushed last; does nothing without a draft."""
        with contextlib.suppress(ApiError):
            self.client.delete_from_workspace(self.name)

    def history(self) -> tuple[BlueprintChange, ...]:
        """The changes of the blueprint, the last one first."""
        try:
            return self.client.changes(self.name)
        except ApiError as error:
            if error.id == "UnknownBlueprint":
                return ()
            raise

    def difference(self, commit: str) -> str:
        """The difference from a change to the draft, as lines of TOML with + and -."""
        before = to_toml(self.client.blueprint_at(self.name, commit)).splitlines()
        after = to_toml(self.draft).splitlines()
        lines = list(difflib.unified_diff(before, after, lineterm="", n=1))[2:]
        return "\n".join(line for line in lines if not line.startswith("@@"))

    def undo(self, commit: str) -> None:
        """Restore the blueprint of a change, as a new change."""
        self.discard()
        self.client.undo(self.name, commit)

    # display ----------------------------------------------------------------------------------

    def twin_parts(self) -> Sequence[Markup | Table]:
        draft = self.draft
        rows = [(change.timestamp, change.message) for change in self.history()[:5]]
        return [code(to_toml(draft)), self.remarks(draft), Table(("when", "what"), rows, "History")]

    def build(self) -> Sequence[Any]:
        self._search = widgets.Text(placeholder="search packages: python3-*")
        self._search.layout.width = "22em"
        self._results = widgets.VBox(layout={"overflow": "visible"})
        self._tags = widgets.TagsInput(allow_duplicates=False)
        self._tags.observe(lambda _: self.attempt(self._take_tags), "value")
        self._solution = region("solution")
        self._toml = region("toml")
        self._remarks = region("remarks")
        left = [
            widgets.HBox([self._search, self.button("Search", self._find, "by name")], layout=ROW),
            self._results,
            widgets.HTML("<b>Packages</b>: type to add, ✕ removes; name=version for a version"),
            self._tags,
            self._solution,
            self._build_form(),
        ]
        side = {"width": "48%", "min_width": "22em", "overflow": "visible"}
        right = [widgets.HTML("<b>As TOML</b>"), self._toml, self._remarks]
        columns = [widgets.VBox(left, layout=side), widgets.VBox(right, layout=side)]
        layout = {**ROW, "align_items": "flex-start", "justify_content": "space-between"}
        buttons = [
            self.button("Push", self._push, "store it as a new version", "primary"),
            self.button("Discard draft", self._discard, "return to what was pushed last"),
        ]
        return [
            widgets.HBox(columns, layout=layout),
            widgets.HBox(buttons, layout=ROW),
            *self._build_history(),
        ]

    def _build_form(self) -> Any:
        self._fields: dict[Field, Any] = {}
        for field in FORM:
            text = widgets.Text(
                description=field.label,
                placeholder=field.example,
                continuous_update=False,
                style={"description_width": "8.5em"},
                layout={"width": "97%"},
            )
            text.observe(lambda _, field=field: self.attempt(lambda: self._take(field)), "value")
            self._fields[field] = text
        form = widgets.VBox(list(self._fields.values()), layout={"overflow": "visible"})
        return widgets.Accordion([form], titles=["Customizations"])

    def _build_history(self) -> list[Any]:
        self._history = widgets.Dropdown(description="History", layout={"width": "40em"})
        self._history.observe(lambda _: self.attempt(self._compare), "value")
        self._difference = region("difference")
        undo = self.button("Undo to this", self._undo, "restore the blueprint of this change")
        return [widgets.HBox([self._history, undo], layout=ROW), scrolling(self._difference)]

    def refresh(self) -> None:
        draft, history = self.draft, self.history()
        if draft != self._shown:
            self._shown = draft
            self._tags.value = [_tag(spec) for spec in draft.packages]
            for field, text in self._fields.items():
                text.value = _text(draft.customizations, field)
            self._toml.value = code(to_toml(draft)).html
            self._remarks.value = shown(self.remarks(draft))
            self._stale = True
        if self._stale and not self.busy:
            self.work("", self._solve)
        if history != self._changes:
            self._changes = history
            self._history.options = [(_label(change), change.commit) for change in history]
            self._history.index = 0 if history else None
        self._compare()

    # buttons ----------------------------------------------------------------------------------

    def _find(self) -> None:
        pattern = self._search.value
        glob = _glob(pattern.strip())
        self.teach(f"client.search({glob!r})", f"composer-cli modules list {shlex.quote(glob)}")
        packages = self.search(pattern)
        self._results.children = [self._result(info) for info in packages]
        number = len(packages)
        more = "; for others, give more of the name" if number == MOST_RESULTS else ""
        self.say(f"{number or 'no'} package{'s' * (number != 1)} shown{more}")

    def _result(self, info: PackageInfo) -> Any:
        add = self.button("+", lambda: self._add(info.name), f"add {info.name}")
        version = info.versions[-1].evr if info.versions else ""
        words = f"<b>{html.escape(info.name)}</b> {html.escape(version)}<br>"
        text = f'<div style="line-height: 1.3">{words}{html.escape(info.summary)}</div>'
        summary = region("result", text)
        summary.layout.width = "85%"
        return widgets.HBox([add, summary], layout={**ROW, "flex_flow": "row nowrap"})

    def _add(self, name: str) -> None:
        if name not in self._tags.value:
            self._tags.value = [*self._tags.value, name]

    def _take_tags(self) -> None:
        packages = tuple(_spec(tag) for tag in self._tags.value)
        if self._shown is not None and packages != self._shown.packages:
            self.change(packages=packages)
            self._teach_push()
            self.refresh()

    def _take(self, field: Field) -> None:
        text = self._fields[field].value
        if self._shown is not None and text != _text(self._shown.customizations, field):
            self.customize(field, text)
            self._teach_push()
            self.refresh()

    def _push(self) -> None:
        stored = self.push()
        self._teach_push()
        self.refresh()
        self.say(f"✔ pushed: {stored.name} is at version {stored.version}")

    def _discard(self) -> None:
        self.discard()
        self.teach(
            f"client.delete_from_workspace({self.name!r})",
            f"curl --unix-socket {self.client.socket} -X DELETE "
            f"http://localhost/api/v1/blueprints/workspace/{self.name}",
        )
        self.refresh()
        self.say("✔ back to what was pushed last")

    def _undo(self) -> None:
        commit = self._history.value
        if commit is None:
            return
        self.undo(commit)
        self.teach(
            f"client.undo({self.name!r}, {commit!r})",
            f"composer-cli blueprints undo {self.name} {commit}",
        )
        self.refresh()
        self.say("✔ undone: the history has a new entry")

    def _compare(self) -> None:
        commit = self._history.value
        difference = self.difference(commit) if commit else ""
        self._difference.value = code(difference or "no difference to the draft").html

    def _teach_push(self) -> None:
        self.teach(
            "stored = client.push(blueprint)", f"composer-cli blueprints push {self.name}.toml"
        )

    # depsolve ---------------------------------------------------------------------------------

    def _solve(self, on_progress: Say) -> str:
        """Solve the dependencies of the draft; if it changes meanwhile, the next refresh does so
        again."""
        self._stale = False
        self._solution.value = "… solving dependencies"
        try:
            self.solved = self.client.depsolve(self.name) if self.draft.packages else ()
        except RfeError:
            self._solution.value = ""
            raise
        names = " ".join(package.name for package in self.solved)
        count = f"<b>{len(self.solved)} packages</b> with all that they need"
        words = f"{count}: <small>{html.escape(names)}</small>"
        self._solution.value = f'<div style="line-height: 1.3">{words}</div>'
        return ""


def changed(
    customizations: Mapping[str, Any], path: Sequence[str | int], value: Any
) -> dict[str, Any]:
    """A copy of the customizations with one value set, or removed if it is empty."""
    key, rest = str(path[0]), path[1:]
    copy = dict(customizations)
    if rest and rest[0] == 0:
        entries = list(copy.get(key) or [{}])
        entries[0] = changed(entries[0], rest[1:], value)
        copy[key] = [entry for entry in entries if entry]
    elif rest:
        copy[key] = changed(copy.get(key) or {}, rest, value)
    else:
        copy[key] = value
    return {name: entry for name, entry in copy.items() if entry or name != key}


def _text(customizations: Mapping[str, Any], field: Field) -> str:
    """The value of a field of the form, "" if it is not set."""
    value: Any = customizations
    for key in field.path:
        entry = value.get(key) if isinstance(value, Mapping) else next(iter(value), None)
        value = entry or {}
    if not value:
        return ""
    return " ".join(value) if field.words else str(value)


def _spec(tag: str) -> PackageSpec:
    name, _, version = tag.partition("=")
    return PackageSpec(name.strip(), version.strip())


def _tag(spec: PackageSpec) -> str:
    return f"{spec.name}={spec.version}" if spec.version else spec.name


def _glob(word: str) -> str:
    """The pattern of a search: a word without * matches anywhere in a name."""
    return word if "*" in word or not word else f"*{word}*"


def _label(change: BlueprintChange) -> str:
    """A change in one short line, with the time to the minute."""
    return f"{change.timestamp[:16].replace('T', ' ')}  {change.message}"[:56]
