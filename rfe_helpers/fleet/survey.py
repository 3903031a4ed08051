"""The state of several devices at once, with their timers.

Each device is queried with one command over SSH, all of them in parallel; one that is booting does
not answer, and its state says so.
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
_SEPARATOR = "---"
_SECONDS = 120  # for an answer: a busy emulated device is slow
_TIMERS = "systemctl list-timers --all --output=json"


@dataclass(frozen=True)
class TimerStatus:
    """A timer of a device from `systemctl list-timers`; `starts` is the unit that it starts, None
    as a time means never.

    >>> from rfe_helpers import fleet
    >>> timers = {timer.unit: timer for timer in fleet.timers(node)}
    >>> timers["fstrim.timer"].starts
    'fstrim.service'
    """

    unit: str
    starts: str
    next: datetime | None
    last: datetime | None


@dataclass(frozen=True)
class Application:
    """A container: its state as podman names it, the digest of its image, its process id (0 for
    none).

    >>> from rfe_helpers.fleet.survey import Application
    >>> Application(state="running", digest="sha256:0f3a", pid=1203).state
    'running'
    """

    state: str
    digest: str
    pid: int


@dataclass(frozen=True)
class DeviceState:
    """The state of a device. `boot` is its boot id, "" if it does not answer.

    >>> from rfe_helpers import fleet
    >>> [state] = fleet.ask_all([node])
    >>> state.device, state.answers, state.staged
    ('edge-1', True, '')
    """

    device: str
    boot: str = ""
    status: NodeStatus | None = None
    timers: tuple[TimerStatus, ...] = ()
    application: Application | None = None

    @property
    def answers(self) -> bool:
        """Whether it answered over SSH."""
        return self.status is not None

    @property
    def booted(self) -> str:
        """The commit it runs, "" if it does not answer."""
        return self.status.booted.checksum if self.status else ""

    @property
    def staged(self) -> str:
        """The commit that it has staged, "" for none."""
        pending = self.status.pending if self.status else None
        return pending.checksum if pending is not None and pending.staged else ""

    @property
    def digest(self) -> str:
        """The digest of the image of its application, "" unless that is running."""
        container = self.application
        running = container is not None and container.state == "running"
        return container.digest if container is not None and running else ""

    def timer(self, unit: str = LOOKS) -> TimerStatus | None:
        """One of its timers, None if it does not have that."""
        return next((timer for timer in self.timers if timer.unit == unit), None)


T = TypeVar("T")
Goal = Callable[[DeviceState], object]


def ask(node: Node, application: str = "application") -> DeviceState:
    """The state of a device now. Raises NodeError for an answer that cannot be parsed.

    >>> from rfe_helpers.fleet import survey
    >>> survey.ask(node).answers
    True
    """
    queries = (
        "cat /proc/sys/kernel/random/boot_id",
        "rpm-ostree status --json",
        _TIMERS,
        f"podman container inspect {shlex.quote(application)} 2>/dev/null || :",
    )
    try:
        command = "set -e; " + f"; echo {_SEPARATOR}; ".join(queries)
        result = node.sudo(command, seconds=_SECONDS)
    except NodeError:
        return DeviceState(node.name)
    try:
        boot, status, timers, containers = result.stdout.split(f"\n{_SEPARATOR}\n")
        return DeviceState(
            device=node.name,
            boot=boot.strip(),
            status=parse_status(json.loads(status)),
            # The systemd of RHEL 8 (239) takes the option, and prints a table all the same.
            timers=parse_timers(timers) if timers.lstrip().startswith("[") else (),
            application=_parse_containers(json.loads(containers.strip() or "[]")),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise NodeError(f"{node.name}: its answer cannot be parsed: {error!r}") from error


def ask_all(nodes: Sequence[Node], application: str = "application") -> list[DeviceState]:
    """The states of several devices, queried in parallel, in the order of `nodes`.

    >>> from rfe_helpers import fleet
    >>> [state.device for state in fleet.ask_all([node])]
    ['edge-1']
    """
    return _in_parallel(nodes, lambda node: ask(node, application))


def everywhere(nodes: Sequence[Node], command: str, *, seconds: float = 300) -> list[str]:
    r"""Run a shell command as root on several devices in parallel; returns the output of each.
    Raises NodeError if it fails on one.

    >>> from rfe_helpers import fleet
    >>> fleet.everywhere([node], "hostname")
    ['edge-1\n']
    """
    return _in_parallel(nodes, lambda node: node.sudo(command, seconds=seconds).stdout)


def _in_parallel(nodes: Sequence[Node], query: Callable[[Node], T]) -> list[T]:
    with ThreadPoolExecutor(max_workers=max(1, len(nodes))) as pool:
        return list(pool.map(query, nodes))


def watch(
    nodes: Sequence[Node],
    goal: Goal,
    deadline: Deadline | float,
    what: str,
    *,
    on_states: Callable[[list[DeviceState]], None],
    application: str = "application",
    every: float = 3,
) -> list[DeviceState]:
    """Wait until `goal(state)` is true for every device; returns their states then.

    `what` is the event waited for, as in "the update is staged"; `on_states` gets all states after
    each query, `every` so many seconds. A guest whose kernel panics while it boots is reset.
    Raises DeadlineExceededError with the names of the devices that have not reached the goal.

    >>> from rfe_helpers.fleet import survey
    >>> states = survey.watch(
    ...     [node], lambda state: state.answers, 60, "it answers", on_states=print
    ... )
    [DeviceState(device='edge-1', ...)]
    """
    limit = Deadline.of(deadline)
    machines = [Machine.find(node.lab, node.name) for node in nodes]
    while True:
        states = ask_all(nodes, application)
        on_states(states)
        if all(state.answers and goal(state) for state in states):
            return states
        if limit.expired:
            late = [s.device for s in states if not (s.answers and goal(s))]
            raise DeadlineExceededError(
                f"{what}: not within {limit.seconds:.0f} s on {', '.join(late)}",
                remedy="see the journal of the device: journalctl --boot",
            )
        for state, machine in zip(states, machines, strict=True):
            if machine is not None and not state.answers:
                machine.recover_from_panic()
        time.sleep(min(every, limit.left))


# timers -------------------------------------------------------------------------------------------


def timers(node: Node) -> tuple[TimerStatus, ...]:
    """The timers of a device, the next one first. Raises NodeError, also if its systemd, as that
    of RHEL 8, does not print them as JSON.

    >>> from rfe_helpers import fleet
    >>> sorted(timer.unit for timer in fleet.timers(node))
    ['fstrim.timer', 'systemd-tmpfiles-clean.timer']
    """
    answer = node.sudo(_TIMERS, seconds=_SECONDS).stdout
    try:
        return parse_timers(answer)
    except (ValueError, KeyError, TypeError):
        raise NodeError(
            f"{node.name}: its systemd does not list timers as JSON",
            remedy=f"see them there: {node.ssh_line} systemctl list-timers",
        ) from None


def move_timer(node: Node, unit: str, *settings: str) -> str:
    """Change the times of a timer until the next boot; returns the text of the drop-in.

    `settings` are lines of a [Timer] section. The drop-in is in /run and takes precedence by its
    name, which sorts after those in /etc.

    >>> from rfe_helpers.fleet import LOOKS, move_timer
    >>> print(move_timer(node, LOOKS, "OnActiveSec=5s"))  # doctest: +SKIP
    """
    directory = f"/run/systemd/system/{unit}.d"
    # The empty setting removes all triggers, not only those of the calendar.
    cleared = ("OnCalendar=", "RandomizedDelaySec=0", "AccuracySec=1s")
    text = "\n".join(("[Timer]", *cleared, *settings)) + "\n"
    node.sudo(
        f"mkdir -p {directory} && printf %s {shlex.quote(text)} > {directory}/{_MOVED} && "
        f"systemctl daemon-reload && systemctl restart {unit}",
        seconds=_SECONDS,
    )
    return f"# {directory}/{_MOVED}\n{text}"


def parse_timers(text: str) -> tuple[TimerStatus, ...]:
    """Parse `systemctl list-timers --output=json`. Raises ValueError or KeyError."""
    return tuple(
        TimerStatus(
            unit=entry["unit"],
            starts=entry["activates"] or "",
            next=_moment(entry["next"]),
            last=_moment(entry["last"]),
        )
        for entry in json.loads(text)
    )


def _moment(microseconds: int | None) -> datetime | None:
    """A time from systemd's microseconds since 1970; null, 0 and the largest number mean never."""
    if not microseconds or microseconds >= 2**63:
        return None
    return datetime.fromtimestamp(microseconds / 1e6, UTC)


def _parse_containers(containers: list[dict[str, object]]) -> Application | None:
    if not containers:
        return None
    (container,) = containers
    state = container["State"]
    assert isinstance(state, dict)
    return Application(
        state=state["Status"], digest=str(container["ImageDigest"]), pid=int(state["Pid"])
    )
