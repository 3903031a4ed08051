"""Tables of several devices in a notebook: their states, refreshed, and their timers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from rfe_helpers.core.wait import Deadline
from rfe_helpers.errors import CheckFailedError
from rfe_helpers.fleet import survey
from rfe_helpers.fleet.survey import DeviceState, Goal, TimerStatus
from rfe_helpers.machine.node import Node
from rfe_helpers.workbook.progress import Live
from rfe_helpers.workbook.show import Table


def watch(
    nodes: Sequence[Node],
    goal: Goal,
    deadline: Deadline | float,
    what: str,
    *,
    versions: Mapping[str, str] | None = None,
    **options: Any,
) -> list[DeviceState]:
    """Show the states of devices in a table until `goal(state)` is true for every one; returns the
    states then.

    `versions` are names of images by digest; the rest is as in `fleet.survey.watch`, which raises
    DeadlineExceededError.

    >>> from rfe_helpers.workbook import watch
    >>> states = watch([node], lambda state: state.answers, 60, "it answers")
    device...
    edge-1...
    """
    show = Live()
    return survey.watch(
        nodes, goal, deadline, what, on_states=lambda s: show(table(s, versions)), **options
    )


def table(states: Sequence[DeviceState], versions: Mapping[str, str] | None = None) -> Table:
    """The states in one row per device; `versions` are names of images by digest."""
    columns = ("device", "boot", "runs", "staged", "next check", "application", "its image")
    return Table(columns, [_row(state, versions or {}) for state in states])


def _row(state: DeviceState, versions: Mapping[str, str]) -> tuple[str, ...]:
    if state.status is None:
        return (state.device, "does not answer", *["–"] * 5)
    pending = state.status.pending
    checks = state.timer()
    application = state.application
    image = "–"
    if application is not None:
        short = application.digest.removeprefix("sha256:")[:12]
        image = versions.get(application.digest, short)
    return (
        state.device,
        state.boot[:8],
        state.status.booted.version,
        pending.version if pending is not None and pending.staged else "–",
        when(checks.next if checks else None),
        application.state if application else "none",
        image,
    )


def timer_table(timers: Sequence[TimerStatus], units: Sequence[str]) -> Table:
    """A table of those timers that are named in `units`. Raises CheckFailedError if one is
    missing.

    >>> from rfe_helpers import fleet
    >>> from rfe_helpers.workbook import timer_table
    >>> timer_table(fleet.timers(node), ["fstrim.timer"])
    timer         next (UTC)    starts
    ------------  ------------  --------------
    fstrim.timer  Mon ...       fstrim.service
    """
    known = {timer.unit: timer for timer in timers}
    if missing := [unit for unit in units if unit not in known]:
        raise CheckFailedError(f"the device has no {', '.join(missing)}")
    rows = [(unit, when(known[unit].next), known[unit].starts) for unit in units]
    return Table(("timer", "next (UTC)", "starts"), rows)


def when(moment: datetime | None) -> str:
    """A moment as day and time (UTC), "–" for None."""
    return f"{moment:%a %H:%M:%S}" if moment is not None else "–"
