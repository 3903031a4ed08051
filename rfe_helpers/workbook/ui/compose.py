"""The compose panel: start, watch, cancel, download, and a table of all composes."""

from __future__ import annotations

import contextlib
import html
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import ipywidgets as widgets

from rfe_helpers.build.answers import Compose
from rfe_helpers.build.client import Client
from rfe_helpers.core.progress import Say
from rfe_helpers.core.run import tail_of
from rfe_helpers.core.units import elapsed, size
from rfe_helpers.errors import ApiError, InputError
from rfe_helpers.lab.lab import Lab
from rfe_helpers.workbook.show import Markup, Table
from rfe_helpers.workbook.ui import lines
from rfe_helpers.workbook.ui.parts import ROW, Panel, code, note, region, scrolling, shown

_STAGE = re.compile(r"^Stage: *(.+?) *$", re.MULTILINE)
_SIGNS = {"WAITING": "○", "RUNNING": "…", "FINISHED": "✔", "FAILED": "✘"}
# The number of stages of a compose in the sandbox, for the bar; another Image Builder differs.
_USUAL_STAGES = 15


class ComposePanel(Panel):
    """Start, watch and download composes; downloads go to `composes/` of the lab.

    For example:

    >>> from rfe_helpers.workbook import ComposePanel
    >>> panel = ComposePanel(lab, client, "edge")
    >>> panel.size(artifact.compose) == artifact.path.stat().st_size
    True
    """

    title = "Composes"

    def __init__(self, lab: Lab, client: Client, blueprint: str = "") -> None:
        super().__init__()
        self.lab = lab
        self.client = client
        self.preferred = blueprint
        self._listed: tuple[Compose, ...] = ()
        self._sizes: dict[str, int] = {}
        self._teach_start(blueprint or "edge", lab.profile.types.served, {})

    # actions, without widgets ------------------------------------------------------------

    def composes(self) -> tuple[Compose, ...]:
        """All composes, newest first."""
        composes = self.client.composes()
        return tuple(sorted(composes, key=lambda c: str(c.created or ""), reverse=True))

    def log(self, compose: Compose) -> str:
        """The end of the log of a compose so far."""
        try:
            return self.client.log(compose.id, 16)
        except ApiError:  # lorax-composer has no log in the first seconds
            return ""

    def size(self, compose: Compose) -> int | None:
        """The bytes of the artifact of a compose; None before it has finished.

        The server's own figure is the size of a disk, and 0 for a commit.
        """
        if compose.status == "FINISHED" and compose.id not in self._sizes:
            with contextlib.suppress(ApiError):
                self._sizes[compose.id] = self.client.artifact_size(compose.id)
        number = self._sizes.get(compose.id, compose.size)
        return number if number > 0 else None

    def warning(self, blueprint: str) -> str:
        """That a compose does not use the draft of a blueprint, "" if there is none."""
        if not blueprint or not self.client.has_draft(blueprint):
            return ""
        return f"! {blueprint} has a draft: Start builds the version that was pushed before it"

    def defaults(self, ref: str, parent: str, url: str) -> str:
        """The values that the server uses for empty fields, in words."""
        ref = ref or f"{self.lab.profile.ostree.ref} (the release's own)"
        if not url:
            commit = f"commit {parent[:12]}" if parent else "none: a first commit"
        else:
            commit = f"the commit of {parent or 'this ref'} at {url}"
        return f"ref {ref}; parent {commit}"

    # display ----------------------------------------------------------------------------------

    def table(self) -> Table:
        """All composes, newest first."""
        rows = [
            (
                f"{_SIGNS.get(c.status, '?')} {c.status}",
                f"{c.blueprint} {c.version}",
                c.type,
                elapsed(c.seconds),
                size(number) if (number := self.size(c)) else None,
                c.id[:8],
            )
            for c in self.composes()
        ]
        return Table(("status", "blueprint", "type", "time", "size", "id"), rows, "All composes")

    def twin_parts(self) -> Sequence[Markup | Table]:
        warning = self.warning(self.preferred)
        return [
            self.table(),
            note("Empty fields mean: " + self.defaults("", "", "")),
            *([note(warning)] if warning else []),
        ]

    def build(self) -> Sequence[Any]:
        wide = {"width": "24em"}
        style = {"description_width": "6.5em"}
        self._blueprint = widgets.Dropdown(description="Blueprint", layout=wide, style=style)
        self._type = widgets.Dropdown(description="Type", layout=wide, style=style)
        texts = (("Ref", "the release's own"), ("Parent", "a commit or ref"))
        self._ref, self._parent, self._url = (
            widgets.Text(description=label, placeholder=example, layout=wide, style=style)
            for label, example in (*texts, ("URL", "of the parent's repository"))
        )
        self._defaults = region("defaults")
        self._warning = region("warning")
        self._table = region("composes")
        self._choice = widgets.Dropdown(description="Compose", layout={"width": "34em"})
        self._bar = widgets.IntProgress(min=0, max=_USUAL_STAGES, layout={"width": "16em"})
        self._stage = region("stage")
        self._log = region("log")
        for field in (self._ref, self._parent, self._url):
            field.observe(lambda _: self._show_defaults(), "value")
        self._choice.observe(lambda _: self.attempt(self._show_choice), "value")
        self._show_defaults()
        start = self.button("Start", self._start, "add a compose to the queue", "primary")
        fields = [self._blueprint, self._type, self._ref, self._parent, self._url]
        buttons = [
            self.button("Cancel", self._cancel, "end it; it becomes FAILED"),
            self.button("Download", self._download, "copy the artifact into the lab"),
            self.button("Delete", self._delete, "remove it with its artifact"),
        ]
        return [
            widgets.HBox(fields, layout=ROW),
            widgets.HBox([start, self._defaults, self._warning], layout=ROW),
            self._table,
            widgets.HBox([self._choice, *buttons], layout=ROW),
            widgets.HBox([self._bar, self._stage], layout=ROW),
            scrolling(self._log),
        ]

    def refresh(self) -> None:
        _offer(self._blueprint, self.client.blueprints(), self.preferred)
        if not self._type.options:
            types = self.client.types(self.lab.profile.distro)
            _offer(self._type, types, self.lab.profile.types.served)
        self._table.value = shown(self.table())
        self._warning.value = html.escape(self.warning(self._blueprint.value or ""))
        listed = self.composes()
        if [c.id for c in listed] != [c.id for c in self._listed]:
            labels = [(f"{c.blueprint} {c.version}, {c.type}, {c.id[:8]}", c.id) for c in listed]
            chosen = self._choice.value
            newest = listed[0].id if len(listed) > len(self._listed) else chosen
            self._choice.options = labels
            known = [identity for _, identity in labels]
            self._choice.value = newest if newest in known else (known[0] if known else None)
        self._listed = listed
        self._show_choice()
        self.now_shows(self._choice.value)

    def _show_choice(self) -> None:
        compose = next((c for c in self._listed if c.id == self._choice.value), None)
        if compose is None:
            self._log.value, self._stage.value, self._bar.value = "", "no composes yet", 0
            return
        log = self.log(compose)
        stages = _STAGE.findall(log)
        done = compose.status in ("FINISHED", "FAILED")
        self._bar.max = max(_USUAL_STAGES, len(stages) + 1)
        self._bar.value = self._bar.max if done else len(stages)
        self._bar.bar_style = {"FINISHED": "success", "FAILED": "danger"}.get(
            compose.status, "info"
        )
        last = f", stage {stages[-1]}" if stages and compose.status != "FINISHED" else ""
        sign = _SIGNS.get(compose.status, "?")
        self._stage.value = f"{sign} {compose.status} after {elapsed(compose.seconds)}{last}"
        self._log.value = code(tail_of(log, 12)).html

    def _show_defaults(self) -> None:
        words = self.defaults(self._ref.value, self._parent.value, self._url.value)
        self._defaults.value = shown(note(words))

    # buttons ----------------------------------------------------------------------------------

    def _start(self) -> None:
        blueprint, image_type = self._blueprint.value, self._type.value
        if not blueprint or not image_type:
            raise InputError("there is no blueprint yet", remedy="push one with the editor above")
        fields = {"ref": self._ref.value, "parent": self._parent.value, "url": self._url.value}
        options = {name: text.strip() for name, text in fields.items() if text.strip()}
        self.lab.profile.ostree.check_parent(options.get("parent", ""), options.get("url", ""))
        self._teach_start(blueprint, image_type, options)

        def job(on_progress: Say) -> str:
            started = self.client.start_compose(blueprint, image_type, **options)
            version = self.client.compose(started.id).version
            return (
                f"compose {started.id} of {blueprint} {version} is accepted; "
                "it does not need this notebook"
            )

        self.work("Starting", job)

    def _teach_start(self, blueprint: str, image_type: str, options: Mapping[str, str]) -> None:
        words = "".join(f", {name}={text!r}" for name, text in options.items())
        flags = [word for name, text in options.items() for word in (f"--{name}", text)]
        socket = self.client.socket
        body: dict[str, Any] = {"blueprint_name": blueprint, "compose_type": image_type}
        data = json.dumps({**body, "branch": "master", **({"ostree": options} if options else {})})
        send = ["-H", "Content-Type: application/json", "-d", data]
        self.teach(
            lines.client(self.lab, f"client.start_compose({blueprint!r}, {image_type!r}{words})"),
            lines.either(
                lines.composer(socket, "compose", "start-ostree", *flags, blueprint, image_type),
                lines.curl(socket, "compose", *send),
            ),
        )

    def _teach(self, python: str, words: Sequence[str], command: str) -> None:
        """Lines with a method of the client, a command of composer-cli, and one of rfe."""
        self.teach(
            lines.client(self.lab, python),
            lines.either(lines.composer(self.client.socket, "compose", *words), command),
        )

    def _cancel(self) -> None:
        compose = self._chosen()
        command = self.lab.command(f"compose cancel {compose}")
        self._teach(f"client.cancel({compose!r})", ["cancel", compose], command)
        self.client.cancel(compose)
        self.refresh()
        self.say(f"✔ cancelled {compose}")

    def _delete(self) -> None:
        compose = self._chosen()
        command = self.lab.command(f"compose delete {compose}")
        self._teach(f"client.delete_compose({compose!r})", ["delete", compose], command)
        self.client.delete_compose(compose)
        self.refresh()
        self.say(f"✔ deleted {compose}")

    def _download(self) -> None:
        compose = self._chosen()
        directory = self.lab.folder("composes")
        folder = shlex.quote(str(directory))
        command = self.lab.command(f"compose download {compose} --to {folder}")
        self.teach(
            lines.client(
                self.lab,
                f'client.download({compose!r}, {lines.opened(self.lab)}.folder("composes"))',
            ),
            f"cd {folder}\n"
            + lines.either(
                lines.composer(self.client.socket, "compose", "image", compose), command
            ),
        )

        def job(on_progress: Say) -> str:
            path = self.client.download(compose, directory, on_progress)
            return f"{path} ({size(path.stat().st_size)})"

        self.work("Downloading", job)

    def _chosen(self) -> str:
        if not self._choice.value:
            raise InputError("there is no compose yet", remedy="start one")
        return str(self._choice.value)


def _offer(dropdown: Any, values: Sequence[str], preferred: str) -> None:
    """Offer values in a dropdown and keep the chosen one, at first `preferred`."""
    if list(dropdown.options) != list(values):
        chosen = dropdown.value or preferred
        dropdown.options = values
        if chosen in values:
            dropdown.value = chosen
