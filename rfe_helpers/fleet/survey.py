"""Several devices at once: how each is doing, and its timers.

A device is asked with one command over SSH, all of them at the same time; one that is just
booting does not answer, and its state says so.
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

from rfe_helpers.core.wait import Deadline
from rfe_helpers.errors import DeadlineExceededError, NodeError
from rfe_helpers.machine.node import Node, NodeStatus, parse_status
from rfe_helpers.machine.vm import Machine

LOOKS = "rpm-ostreed-automatic.timer"
APPLYUPDATE = "applyupdate.timer"
PODMAN = "podman-auto-update.timer"
_MOVED = "90-moved.conf"
_BETWEEN = "---"
_SECONDS = 120  # for an answer; an emulated device that is busy takes its time
_TIMERS = "systemctl list-timers --all --output=json"


@dataclass(frozen=True)
class TimerStatus:
    """A timer of a device as `systemctl list-timers` tells it; None for never."""

    unit: str
    starts: str
    next: datetime | None
    last: datetime | None


@dataclass(frozen=True)
class Application:
    """A container: podman's word for its state, the digest of its image, its process (0: none)."""

    state: str
    digest: str
    pid: int


@dataclass(frozen=True)
class DeviceState:
    """How a device is doing. `boot` is the id of its boot, "" if it does not answer."""

    device: str
    boot: str = ""
    status: NodeStatus | None = None
    timers: tuple[TimerStatus, ...] = ()
    application: Application | None = None

    @property
    def answers(self) -> bool:
        return self.status is not None

    @property
    def booted(self) -> str:
        """The commit it runs, "" if it does not answer."""
        return self.status.booted.checksum if self.status else ""

    @property
    def staged(self) -> str:
        """The commit that it has staged, "" if none."""
        pending = self.status.pending if self.status else None
        return pending.checksum if pending is not None and pending.staged else ""

    @property
    def digest(self) -> str:
        """The digest of the image that its application runs from, "" unless it runs."""
        found = self.application
        return found.digest if found is not None and found.state == "running" else ""

    def timer(self, unit: str = LOOKS) -> TimerStatus | None:
        return next((timer for timer in self.timers if timer.unit == unit), None)


T = TypeVar("T")
Goal = Callable[[DeviceState], object]


def ask(node: Node, application: str = "application") -> DeviceState:
    """How a device is doing now. Raises NodeError for an answer that makes no sense."""
    parts = (
        "cat /proc/sys/kernel/random/boot_id",
        "rpm-ostree status --json",
        _TIMERS,
        f"podman container inspect {shlex.quote(application)} 2>/dev/null || :",
    )
    try:
        command = "set -e; " + f"; echo {_BETWEEN}; ".join(parts)
        result = node.sudo(command, seconds=_SECONDS)
    except NodeError:
        return DeviceState(node.name)
    try:
        boot, status, timers, containers = result.stdout.split(f"\n{_BETWEEN}\n")
        return DeviceState(
            node.name,
            boot.strip(),
            parse_status(json.loads(status)),
            parse_timers(timers),
            _application(json.loads(containers.strip() or "[]")),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise NodeError(f"{node.name}: its answer makes no sense: {error!r}") from error


def ask_all(nodes: Sequence[Node], application: str = "application") -> list[DeviceState]:
    """How all of them are doing, asked at the same time."""
    return _at_once(nodes, lambda node: ask(node, application))


def everywhere(nodes: Sequence[Node], command: str, *, seconds: float = 300) -> list[str]:
    """Run a shell command as root on all of them at the same time; what each printed."""
    return _at_once(nodes, lambda node: node.sudo(command, seconds=seconds).stdout)


def _at_once(nodes: Sequence[Node], act: Callable[[Node], T]) -> list[T]:
    with ThreadPoolExecutor(max_workers=max(1, len(nodes))) as pool:
        return list(pool.map(act, nodes))


def watch(
    nodes: Sequence[Node],
    goal: Goal,
    deadline: Deadline,
    what: str,
    *,
    on_states: Callable[[list[DeviceState]], None],
    application: str = "application",
    every: float = 3,
) -> list[DeviceState]:
    """Wait until every one has reached the goal; returns their states then.

    `what` completes "… did not happen"; `on_states` sees all states, again and again. A guest
    whose kernel panics while it boots is reset. Raises DeadlineExceededError.
    """
    machines = [Machine.find(node.lab, node.name) for node in nodes]
    while True:
        states = ask_all(nodes, application)
        on_states(states)
        if all(state.answers and goal(state) for state in states):
            return states
        if deadline.expired:
            late = [s.device for s in states if not (s.answers and goal(s))]
            raise DeadlineExceededError(
                f"{what}: not within {deadline.seconds:.0f} s on {', '.join(late)}",
                remedy="look at its journal: journalctl --boot, in a shell on the device",
            )
        for state, machine in zip(states, machines, strict=True):
            if machine is not None and not state.answers:
                machine.recover_from_panic()
        time.sleep(min(every, deadline.left))


# timers -------------------------------------------------------------------------------------------


def timers(node: Node) -> tuple[TimerStatus, ...]:
    """The timers of a device, the next one first."""
    return parse_timers(node.sudo(_TIMERS, seconds=_SECONDS).stdout)


def move_timer(node: Node, unit: str, *settings: str) -> str:
    """Give a timer other times until the next boot; returns the drop-in.

    It lies in /run, and its name comes after those of /etc, so that it has the last word.
    """
    directory = f"/run/systemd/system/{unit}.d"
    # The empty setting takes all triggers away, not only those of the calendar.
    cleared = ("OnCalendar=", "RandomizedDelaySec=0", "AccuracySec=1s")
    text = "\n".join(("[Timer]", *cleared, *settings)) + "\n"
    node.sudo(
        f"mkdir -p {directory} && printf %s {shlex.quote(text)} > {directory}/{_MOVED} && "
        f"systemctl daemon-reload && systemctl restart {unit}",
        seconds=_SECONDS,
    )
    return f"# {directory}/{_MOVED}\n{text}"


def parse_timers(text: str) -> tuple[TimerStatus, ...]:
    """What `systemctl list-timers --output=json` printed. Raises ValueError, KeyError."""
    return tuple(
        TimerStatus(
            entry["unit"], entry["activates"] or "", _moment(entry["next"]), _moment(entry["last"])
        )
        for entry in json.loads(text)
    )


def _moment(microseconds: int | None) -> datetime | None:
    """systemd's microseconds since 1970; none, 0 and the largest number are "never"."""
    if not microseconds or microseconds >= 2**63:
        return None
    return datetime.fromtimestamp(microseconds / 1e6, UTC)


def _application(found: list[dict[str, object]]) -> Application | None:
    if not found:
        return None
    (container,) = found
    state = container["State"]
    assert isinstance(state, dict)
    return Application(state["Status"], str(container["ImageDigest"]), int(state["Pid"]))
