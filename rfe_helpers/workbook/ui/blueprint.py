"""The blueprint editor: packages, customizations, history.

It edits the draft in Image Builder's workspace, so that nothing is lost with the kernel; a compose
uses the blueprint that was pushed last.
"""

from __future__ import annotations

import contextlib
import difflib
import html
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import ipywidgets as widgets

from rfe_helpers.build.answers import BlueprintChange, PackageInfo
from rfe_helpers.build.blueprint import Blueprint, PackageSpec, bumped, to_toml
from rfe_helpers.build.client import Client
from rfe_helpers.build.connect import refusal
from rfe_helpers.build.linter import lint
from rfe_helpers.commit.ostree import Package
from rfe_helpers.core.masking import mask
from rfe_helpers.core.progress import Say
from rfe_helpers.errors import ApiError, BlueprintError, RfeError
from rfe_helpers.lab.lab import Lab
from rfe_helpers.workbook.show import Markup, Table
from rfe_helpers.workbook.ui import lines
from rfe_helpers.workbook.ui.form import FORM, Field, changed, text_of
from rfe_helpers.workbook.ui.parts import (
    BAD,
    ROW,
    Panel,
    code,
    note,
    refill,
    region,
    scrolling,
    shown,
)

MOST_RESULTS = 8


class BlueprintEditor(Panel):
    """Edit the blueprint `name` of an Image Builder, at first an empty one if it does not exist.

    For example:

    >>> from rfe_helpers.workbook import BlueprintEditor
    >>> editor = BlueprintEditor(lab, client, "edge")
    >>> editor.is_pushed, editor.candidate.name
    (True, 'edge')

    `solved`, `missing` and `problem` are what the last solving of its dependencies gave: all
    packages, those that no repository has, and why it failed.
    """

    title = "Blueprint editor"

    def __init__(self, lab: Lab, client: Client, name: str) -> None:
        super().__init__()
        self.lab = lab
        self.client = client
        self.name = name
        self.solved: tuple[Package, ...] = ()
        self.missing: tuple[str, ...] = ()
        self.problem = ""
        self._shown: Blueprint | None = None
        self._changes: tuple[BlueprintChange, ...] = ()
        self._stale = False

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

    @property
    def is_pushed(self) -> bool:
        """Whether the draft is what composes use."""
        return self.name in self.client.blueprints() and not self.client.has_draft(self.name)

    @property
    def candidate(self) -> Blueprint:
        """The draft with the version that a push gives it.

        The server would raise a version that it has already, but its history would keep the old.
        """
        draft, history = self.draft, self.history()
        if not history or self.is_pushed:
            return draft
        last = self.client.blueprint_at(self.name, history[0].commit).version
        stale = draft.version in (last, bumped(last))
        return replace(draft, version=bumped(draft.version)) if stale else draft

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

    def examine(self) -> None:
        """Solve the dependencies of the draft."""
        draft = self.draft
        self.solved, self.missing, self.problem = (), (), ""
        if not draft.packages:
            return
        try:
            self.solved = self.client.depsolve(self.name)
        except RfeError as error:
            self.problem = str(error)
            self._stale = not isinstance(error, ApiError)  # try again when the server is back
            names = [spec.name for spec in draft.packages]
            with contextlib.suppress(RfeError):
                self.missing = tuple(name for name in names if not self.client.search(name))

    def remarks(self, draft: Blueprint) -> Markup:
        """What the sandbox refuses to compose, and the linter's findings for this release."""
        refused = refusal(self.lab, draft)
        remarks = (
            [f"✘ {_refusal(refused)}. To do: leave that out, or correct it"] if refused else []
        )
        findings = lint(draft, self.lab.profile)
        remarks += [f"! {each.where}: {each.message}. To do: {each.remedy}" for each in findings]
        if not remarks:
            return note("" if self.problem else "✔ no problems are known with it")
        return Markup("".join(note(remark).html for remark in remarks), "\n".join(remarks))

    def push(self) -> Blueprint:
        """Push the draft, which begins the history then; returns it as the server has it.

        Does nothing if it is pushed. Raises BlueprintError for packages that do not exist.
        """
        if self.is_pushed:
            return self.draft
        self.examine()
        if self.missing:
            raise BlueprintError(
                f"not pushed: no repository has {', '.join(self.missing)}",
                remedy="remove it with ✕, or correct its name",
            )
        return self.client.push(self.candidate)

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
        rows = list(difflib.unified_diff(before, after, lineterm="", n=1))[2:]
        return "\n".join(row for row in rows if not row.startswith("@@"))

    def undo(self, commit: str) -> None:
        """Restore the blueprint of a change, as a new change."""
        self.discard()
        self.client.undo(self.name, commit)

    # display ----------------------------------------------------------------------------------

    def standing(self) -> str:
        """Whether composes use what is shown, in words."""
        if self.is_pushed:
            return f"✔ composes use this, version {self.draft.version}"
        return "● a draft: composes do not use it before you press Push"

    def twin_parts(self) -> Sequence[Markup | Table]:
        draft = self.draft
        rows = [(change.timestamp, change.message) for change in self.history()[:5]]
        history = Table(("when", "what"), rows, "History")
        if not self.taught:
            self._teach_push()
        return [code(to_toml(draft)), note(self.standing()), self.remarks(draft), history]

    def build(self) -> Sequence[Any]:
        # Not at every key: Enter, or leaving the field, searches.
        self._search = widgets.Text(
            placeholder="search packages: python3-*", continuous_update=False
        )
        self._search.layout.width = "22em"
        self._search.observe(lambda _: self.attempt(self._find), "value")
        self._results = widgets.VBox(layout={"overflow": "visible"})
        self._tags = widgets.TagsInput(allow_duplicates=False)
        self._tags.add_class(f"rfe-tags-{self._tags.model_id}")
        self._tags.observe(lambda _: self.attempt(self._take_tags), "value")
        self._problem = region("problem")
        self._solution = region("solution")
        self._toml = region("toml")
        self._standing = region("standing")
        self._remarks = region("remarks")
        left = [
            widgets.HBox([self._search, self.button("Search", self._find, "by name")], layout=ROW),
            self._results,
            widgets.HTML("<b>Packages</b>: type to add, ✕ removes; name=version for a version"),
            self._tags,
            self._problem,
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
            self._standing,
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
                style={"description_width": "10em"},
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
        draft, history, standing = self.draft, self.history(), self.standing()
        if draft != self._shown:
            self._shown = draft
            self._tags.value = [_tag(spec) for spec in draft.packages]
            for field, text in self._fields.items():
                text.value = text_of(draft.customizations, field)
            self._toml.value = code(to_toml(draft)).html
            self._remarks.value = shown(self.remarks(draft))
            self._teach_push()
            self._stale = True
        self._standing.value = html.escape(standing)
        if self._stale and not self.busy:
            self.work("", self._solve)
        if history != self._changes:
            self._changes = history
            self._history.options = [(_label(change), change.commit) for change in history]
            self._history.index = 0 if history else None
        self._compare()
        self.now_shows((draft, history[:1], standing))

    # buttons ----------------------------------------------------------------------------------

    def _find(self) -> None:
        glob = _glob(self._search.value.strip())
        if not glob:
            refill(self._results, [])
            self.say("Type part of a name to search for packages.")
            return
        self.teach(
            lines.client(self.lab, f"client.search({glob!r})"),
            lines.either(
                lines.composer(self.client.socket, "modules", "list", glob),
                lines.curl(self.client.socket, f"modules/list/{quote(glob, safe='*')}?limit=1000"),
            ),
        )
        packages = self.search(self._search.value)
        refill(self._results, [self._result(info) for info in packages])
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
            self._edit(lambda: self.change(packages=packages))

    def _take(self, field: Field) -> None:
        text = self._fields[field].value
        if self._shown is not None and text != text_of(self._shown.customizations, field):
            self._edit(lambda: self.customize(field, text))

    def _edit(self, change: Callable[[], object]) -> None:
        """Change the draft; what the server refuses disappears from the fields again."""
        try:
            change()
        except RfeError:
            self._shown = None
            raise
        finally:
            self.refresh()

    def _push(self) -> None:
        self._teach_push()

        def job(on_progress: Say) -> str:
            pushed = self.is_pushed
            try:
                stored = self.push()
            finally:
                self._show_solution()
            if pushed:
                return f"nothing to push: composes use this, version {stored.version}"
            refused = refusal(self.lab, stored)
            more = f"\n✘ but {_refusal(refused)}" if refused else ""
            return f"pushed: {stored.name} is at version {stored.version}{more}"

        self.work("Solving dependencies and pushing", job)

    def _discard(self) -> None:
        self.discard()
        self.refresh()
        path = f"blueprints/workspace/{self.name}"
        self.teach(
            lines.client(self.lab, f"client.delete_from_workspace({self.name!r})"),
            lines.curl(self.client.socket, path, "-X", "DELETE"),
        )
        self.say("✔ back to what was pushed last")

    def _undo(self) -> None:
        commit = self._history.value
        if commit is None:
            raise BlueprintError("there is no history yet", remedy="push it first")
        self.undo(commit)
        self.refresh()
        self.teach(
            lines.client(self.lab, f"client.undo({self.name!r}, {commit!r})"),
            lines.either(
                lines.composer(self.client.socket, "blueprints", "undo", self.name, commit),
                self.lab.command(f"blueprint undo {self.name} {commit}"),
            ),
        )
        self.say("✔ undone: the history has a new entry")

    def _compare(self) -> None:
        commit = self._history.value
        difference = self.difference(commit) if commit else ""
        self._difference.value = code(difference or "no difference to the draft").html

    def _teach_push(self) -> None:
        toml = to_toml(self.candidate)
        file, show = f"{self.name}.toml", f"blueprint show {self.name}"
        shell = lines.either(
            lines.composer(self.client.socket, "blueprints", "push", file),
            self.lab.command(f"blueprint push {file}"),
        )
        if mask(toml) == toml:
            python, source = lines.literal(toml), lines.file(file, toml)
        else:  # a password's hash stays in Image Builder
            python, source = (
                f"client.blueprint({self.name!r})",
                f"{self.lab.command(show)} > {file}",
            )
        self.teach(lines.client(self.lab, f"client.push({python})"), f"{source}\n{shell}")

    # depsolve ---------------------------------------------------------------------------------

    def _solve(self, on_progress: Say) -> str:
        """Solve the dependencies of the draft; if it changes meanwhile, the next refresh does so
        again."""
        self._stale = False
        self._solution.value = "… solving dependencies"
        self.examine()
        self._show_solution()
        return ""

    def _show_solution(self) -> None:
        if self._shown is not None:
            self._remarks.value = shown(self.remarks(self._shown))
        names = " ".join(package.name for package in self.solved)
        count = f"<b>{len(self.solved)} packages</b> in the image"
        words = f"{count}: <small>{html.escape(names)}</small>"
        self._solution.value = (
            "" if self.problem else f'<div style="line-height: 1.3">{words}</div>'
        )
        problems = [f"✘ {name}: no repository has it" for name in self.missing]
        if self.missing:
            problems.append("Remove it with ✕, or correct its name: Search finds the right one.")
        elif self.problem:
            problems = [f"✘ {self.problem}"]
        text = "<br>".join(html.escape(problem).replace("\n", "<br>") for problem in problems)
        self._problem.value = (
            f'{self._red_tags()}<div style="color: {BAD}; line-height: 1.4">{text}</div>'
            if problems
            else ""
        )

    def _red_tags(self) -> str:
        """A style sheet for the tags of missing packages: TagsInput has one style for all."""
        tags = f".rfe-tags-{self._tags.model_id} > .jupyter-widget-tag"
        names = [_spec(tag).name for tag in self._tags.value]
        chosen = ", ".join(
            f"{tags}:nth-child({place} of .jupyter-widget-tag)"
            for place, name in enumerate(names, 1)
            if name in self.missing
        )
        return f"<style>{chosen} {{ background: {BAD}; color: #fff }}</style>" if chosen else ""


def _spec(tag: str) -> PackageSpec:
    name, _, version = tag.partition("=")
    return PackageSpec(name.strip(), version.strip())


def _tag(spec: PackageSpec) -> str:
    return f"{spec.name}={spec.version}" if spec.version else spec.name


def _refusal(reason: str) -> str:
    return f"the sandbox refuses to compose it: {reason}"


def _glob(word: str) -> str:
    """The pattern of a search: a word without * matches anywhere in a name."""
    return word if "*" in word or not word else f"*{word}*"


def _label(change: BlueprintChange) -> str:
    """A change in one short line, with the time to the minute."""
    return f"{change.timestamp[:16].replace('T', ' ')}  {change.message}"[:56]
