"""A model of a rollout: the load that a release puts on the mirror, and when devices have it.

Every device starts its update service as systemd does (rfe_helpers.fleet.timer). At the first start
after its wave of the rollout, it pulls; before and after that it only checks. Pulls form a fluid
queue in front of the mirror, which is limited in requests and bytes per second: those that wait
longer than the client's patience fail and return at the device's next start. Time is in seconds
after the release and advances in steps; a load is the mean over one step.

Devices are drawn at random with a fixed seed, in blocks, so that ten million fit in memory. Measure
the cost of a pull and of a check with a real client in the lab (rfe_helpers.fleet.cost).
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rfe_helpers.errors import InputError
from rfe_helpers.fleet.timer import DAY, Indices, Schedule, Timer, Times, parse_timer

_BLOCK, _THREADS = 250_000, 2  # devices whose moments fit into a processor's cache
_STEPS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0)
_MOST_STEPS = 100_000
# The timer that rpm-ostree comes with: no splay.
RPM_OSTREE = parse_timer("OnBootSec=1h\nOnUnitInactiveSec=1d")


@dataclass(frozen=True)
class Pull:
    """What one device costs the mirror, in requests and bytes: a pull of the update, and a check
    without one. `seconds` is how long the pull takes without other clients.

    >>> from rfe_helpers.fleet import Pull
    >>> Pull(requests=45, bytes=667_000, seconds=11)
    Pull(requests=45, bytes=667000, seconds=11, check_requests=2.0, check_bytes=2000.0)
    """

    requests: float
    bytes: float
    seconds: float = 30.0
    check_requests: float = 2.0
    check_bytes: float = 2_000.0


@dataclass(frozen=True)
class Mirror:
    """What the mirror can serve per second; infinity for no limit.

    >>> from rfe_helpers.fleet import Mirror
    >>> Mirror(requests=5000, bytes=10_000 * 1e6 / 8)  # 10 Gbit/s
    Mirror(requests=5000, bytes=1250000000.0)
    """

    requests: float = float("inf")
    bytes: float = float("inf")


@dataclass(frozen=True)
class Fleet:
    r"""A number of devices and what happens to them; times in seconds after the release.

    With `together`, all devices boot at the release, as a site after a power cut; otherwise they
    boot independently. The share `off` is off at the release and comes back evenly within
    `off_seconds`. A power cut at `cut_at` switches the share `cut` off for `cut_seconds`.
    `rollout` has points (seconds, share of the fleet that may update), joined by straight lines.
    `patience` is how long a client waits for the mirror before it gives up.

    >>> from rfe_helpers.fleet import DAY, Fleet, parse_timer
    >>> timer = parse_timer("OnCalendar=daily\nRandomizedDelaySec=6h")
    >>> shops = Fleet(50_000, timer, off=0.1, off_seconds=2 * DAY)
    """

    devices: int
    timer: Timer = RPM_OSTREE
    together: bool = False
    off: float = 0.0
    off_seconds: float = 0.0
    cut: float = 0.0
    cut_at: float = 0.0
    cut_seconds: float = 600.0
    rollout: tuple[tuple[float, float], ...] = ((0.0, 1.0),)
    patience: float = 300.0


@dataclass(frozen=True)
class Plan:
    """The result of the model. Rates are per second; times are seconds after the release, infinity
    for what does not happen within `horizon`.

    `peak_requests` and `peak_bytes` are what devices request, `served_peak_requests` what the
    mirror serves; `p99_requests` is exceeded in 1 % of the steps until all have the update.
    `missed` is the share that has not staged when the window opens. `curves` are arrays with one
    value per step: time (s), asked and served (requests/s), asked_bytes (bytes/s), staged (share).

    >>> from rfe_helpers.fleet import Fleet, Pull, plan
    >>> result = plan(Fleet(10_000), Pull(requests=45, bytes=667_000))
    >>> result.missed, result.to_dict()["devices"]
    (0.0, 10000)
    """

    devices: int
    horizon: float
    step: float
    window: float
    peak_requests: float
    peak_bytes: float
    p99_requests: float
    served_peak_requests: float
    longest_wait: float
    failed_pulls: float
    half_staged: float
    most_staged: float
    all_staged: float
    missed: float
    curves: dict[str, NDArray[np.float64]] = field(repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """The figures as JSON values, without the curves; None for infinity."""
        figures = asdict(replace(self, curves={}))
        del figures["curves"]
        return {k: None if v == float("inf") else v for k, v in figures.items()}


def plan(
    fleet: Fleet,
    pull: Pull,
    mirror: Mirror | None = None,
    *,
    horizon: float = 7 * DAY,
    window: float | None = None,
    release: datetime | None = None,
    step: float | None = None,
    seed: int = 1,
) -> Plan:
    """Model a release at `release` (default: Monday 2026-01-05 00:00 UTC) until `horizon` (s).

    `window` is when the maintenance window opens, in seconds after the release (default: the
    horizon); `step` is in seconds (default: as short as memory allows). Raises InputError for
    values that contradict each other.

    >>> from rfe_helpers.fleet import Fleet, Mirror, Pull, plan
    >>> pull = Pull(requests=45, bytes=667_000)
    >>> result = plan(Fleet(100_000), pull, Mirror(requests=5000))
    >>> round(result.half_staged / 3600)  # hours
    12
    """
    _check(fleet, pull, horizon)
    origin = release or datetime(2026, 1, 5, tzinfo=UTC)
    bins = _Bins(step or _step(horizon), horizon)
    sizes = [min(_BLOCK, fleet.devices - first) for first in range(0, fleet.devices, _BLOCK)]
    generators = np.random.default_rng(seed).spawn(len(sizes))

    def starts(size: int, rng: np.random.Generator) -> Times:
        return _Block(fleet, size, origin, bins, rng).starts()

    # NumPy computes without Python's lock.
    with ThreadPoolExecutor(_THREADS) as threads:
        arrivals, checks = reduce(np.add, threads.map(starts, sizes, generators))
    queue = _Queue(fleet, pull, mirror or Mirror(), bins, _Retries(fleet.timer, origin, bins))
    queue.run(arrivals, checks)
    checks += _later_checks(fleet, origin, bins, queue.staged / fleet.devices)
    return _result(fleet, pull, bins, queue, checks, horizon if window is None else window)


# devices --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Bins:
    """Steps of time from 0 to the horizon."""

    step: float
    horizon: float

    @property
    def count(self) -> int:
        return int(np.ceil(self.horizon / self.step))

    @property
    def times(self) -> Times:
        """The end of each step."""
        return np.arange(1, self.count + 1, dtype=np.float64) * self.step

    def histogram(self, moments: Times) -> Times:
        """The number of `moments` (all before the horizon) in each step."""
        indices = (moments / self.step).astype(np.int32)  # int64 takes ten times as long
        return np.bincount(indices, minlength=self.count)[: self.count].astype(np.float64)


class _Block:
    """Some of the devices, until each of them starts its pull."""

    def __init__(
        self, fleet: Fleet, devices: int, origin: datetime, bins: _Bins, rng: np.random.Generator
    ) -> None:
        self.fleet, self.bins, self.rng = fleet, bins, rng
        self.indices: Indices = np.arange(devices)
        self.schedule = Schedule(fleet.timer, origin, bins.horizon, devices, rng)
        points = np.array(fleet.rollout)
        ranks = rng.random(devices)
        self.wave = np.interp(ranks, points[:, 1], points[:, 0], right=np.inf)
        self.cut = rng.random(devices) < fleet.cut

    def starts(self) -> Times:
        """Let every device start its service repeatedly until its wave has come. Returns two rows:
        the pulls and the checks in each step."""
        counts = np.zeros((2, self.bins.count))
        indices, moments = self.indices, self._first()
        while indices.size:
            moments = self._after_cut(moments, indices)
            inside = moments < self.bins.horizon
            early = moments < self.wave[indices]
            # Positions, since NumPy selects by them several times as fast as by booleans.
            counts[0] += self.bins.histogram(moments[np.flatnonzero(inside & ~early)])
            waiting = np.flatnonzero(inside & early)
            indices, moments = indices[waiting], moments[waiting]
            counts[1] += self.bins.histogram(moments)
            moments = self.schedule.following(moments, indices)
        return counts

    def _first(self) -> Times:
        """The first start of each device after the release."""
        if self.fleet.together:
            return self.schedule.after_boot(np.zeros(self.indices.shape), 0.0, self.indices)
        moments = self.schedule.steady(self.indices)
        off = np.flatnonzero(self.rng.random(self.indices.shape) < self.fleet.off)
        boot = self.rng.uniform(0, self.fleet.off_seconds, off.shape)
        moments[off] = self.schedule.after_boot(boot, 0.0, off)
        return moments

    def _after_cut(self, moments: Times, indices: Indices) -> Times:
        """The starts of devices without power are put off until after their next boot."""
        if not self.fleet.cut:
            return moments
        cut_off = np.flatnonzero(self.cut[indices] & (moments >= self.fleet.cut_at))
        back = indices[cut_off]
        boot = np.full(back.shape, self.fleet.cut_at + self.fleet.cut_seconds)
        moments[cut_off] = self.schedule.after_boot(boot, self.fleet.cut_at, back)
        self.cut[back] = False
        return moments


# the mirror -----------------------------------------------------------------------------------


class _Queue:
    """Pulls in front of the mirror, first come, first served, counted per step.

    After `run`, `due` has the pulls that arrived in each step (first attempts and retries),
    `started` those that the mirror began to serve, `staged` the number of devices that have the
    update at the end of each step.
    """

    def __init__(
        self, fleet: Fleet, pull: Pull, mirror: Mirror, bins: _Bins, retries: _Retries
    ) -> None:
        self.fleet, self.pull, self.mirror, self.bins = fleet, pull, mirror, bins
        self.retries = retries
        self.longest_wait = 0.0
        self.failed = 0.0

    def run(self, arrivals: Times, checks: Times) -> None:
        room = self._room(checks)
        if (arrivals <= room).all():  # nobody waits
            self.due = self.started = arrivals
        else:
            self.due, self.started = self._serve(arrivals, room)
        begun = np.concatenate([[0.0], np.cumsum(self.started)])
        ends = np.concatenate([[0.0], self.bins.times])
        self.staged = np.interp(self.bins.times - self.pull.seconds, ends, begun, left=0.0)

    def _room(self, checks: Times) -> Times:
        """The number of pulls that the mirror can start in each step, beside the checks."""
        pull, mirror, step = self.pull, self.mirror, self.bins.step
        requests = mirror.requests * step - checks * pull.check_requests
        volume = mirror.bytes * step - checks * pull.check_bytes
        room = np.minimum(requests / max(pull.requests, 1e-9), volume / max(pull.bytes, 1e-9))
        return np.maximum(room, 0.0)

    def _serve(self, arrivals: Times, room: Times) -> tuple[Times, Times]:
        step, patience = self.bins.step, self.fleet.patience
        due, started = [0.0] * self.bins.count, [0.0] * self.bins.count
        waiting: deque[tuple[int, float]] = deque()
        # Python's numbers, since a loop over those of NumPy takes five times as long.
        for now, (arrived, left) in enumerate(zip(arrivals.tolist(), room.tolist(), strict=True)):
            due[now] = arrived + self.retries.at(now)
            if due[now]:
                waiting.append((now, due[now]))
            while waiting and left > 0:
                since, count = waiting.popleft()
                served = min(count, left)
                left -= served
                started[now] += served
                self.longest_wait = max(self.longest_wait, (now - since) * step)
                if served < count:
                    waiting.appendleft((since, count - served))
            while waiting and (now - waiting[0][0]) * step >= patience:
                _, count = waiting.popleft()
                self.failed += count
                self.retries.add(now, count)
        return np.array(due), np.array(started)


class _Retries:
    """Devices whose pull has failed, spread over the moments of their next start."""

    def __init__(self, timer: Timer, origin: datetime, bins: _Bins) -> None:
        self.timer, self.bins = timer, bins
        parts = [c.elapses(origin, 0.0, bins.horizon) for c in timer.calendars]
        known = np.unique(np.concatenate(parts)) if parts else np.empty(0)
        self.elapses = np.append(known, np.inf)
        self._change = [0.0] * (bins.count + 1)
        self._rate = 0.0

    def at(self, step: int) -> float:
        """The number of retries in a step; call it for one step after the other."""
        self._rate += self._change[step]
        return max(0.0, self._rate)

    def add(self, step: int, count: float) -> None:
        """Record that `count` pulls fail in a step."""
        now = (step + 1) * self.bins.step
        moments = [float(self.elapses[np.searchsorted(self.elapses[:-1], now, side="right")])]
        if self.timer.on_unit_inactive is not None:
            moments.append(now + self.timer.on_unit_inactive)
        begin = min(moments)
        if begin >= self.bins.horizon:
            return
        width = self.timer.randomized_delay + self.timer.accuracy
        first = max(step + 1, int(begin / self.bins.step))
        last = max(first, int((begin + width) / self.bins.step))
        share = count / (last - first + 1)
        self._change[min(first, self.bins.count)] += share
        self._change[min(last + 1, self.bins.count)] -= share


def _later_checks(fleet: Fleet, origin: datetime, bins: _Bins, staged: Times) -> Times:
    """The checks of devices that have the update already, per step, as expected values.

    Those of monotonic timers are spread evenly, since such devices are out of step by then.
    """
    timer = fleet.timer
    updated = staged * fleet.devices
    checks = np.zeros(bins.count)
    if timer.on_unit_inactive is not None:
        mean = timer.on_unit_inactive + (timer.randomized_delay + timer.accuracy) / 2
        return updated * bins.step / mean
    width = timer.randomized_delay + timer.accuracy
    for expression in timer.calendars:
        for elapse in expression.elapses(origin, 0.0, bins.horizon):
            first = int(elapse / bins.step)
            last = min(bins.count - 1, int((elapse + width) / bins.step))
            steps = max(1, int((elapse + width) / bins.step) - first + 1)
            checks[first : last + 1] += updated[first] / steps
    return checks


# results --------------------------------------------------------------------------------------


def _result(
    fleet: Fleet,
    pull: Pull,
    bins: _Bins,
    queue: _Queue,
    checks: Times,
    window: float,
) -> Plan:
    due, started = _rate(queue.due, pull, bins), _rate(queue.started, pull, bins)
    check_rate = checks / bins.step
    asked = due * pull.requests + check_rate * pull.check_requests
    asked_bytes = due * pull.bytes + check_rate * pull.check_bytes
    served = started * pull.requests + check_rate * pull.check_requests
    served = np.minimum(served, queue.mirror.requests)
    share = queue.staged / fleet.devices
    all_staged = _when(share, 1.0 - 0.5 / fleet.devices, bins)
    busy = asked[: int(min(all_staged, bins.horizon) / bins.step) + 1]
    return Plan(
        devices=fleet.devices,
        horizon=bins.horizon,
        step=bins.step,
        window=window,
        peak_requests=float(asked.max()),
        peak_bytes=float(asked_bytes.max()),
        p99_requests=float(np.quantile(busy, 0.99)),
        served_peak_requests=float(served.max()),
        longest_wait=queue.longest_wait,
        failed_pulls=float(queue.failed),
        half_staged=_when(share, 0.5, bins),
        most_staged=_when(share, 0.99, bins),
        all_staged=all_staged,
        missed=max(0.0, float(1.0 - np.interp(window, bins.times, share))),
        curves={
            "time": bins.times,
            "asked": asked,
            "served": served,
            "asked_bytes": asked_bytes,
            "staged": share,
        },
    )


def _rate(starts: Times, pull: Pull, bins: _Bins) -> Times:
    """Pulls per second at the end of each step, each spread evenly over its own duration."""
    begun = np.concatenate([[0.0], np.cumsum(starts)])
    ends = np.concatenate([[0.0], bins.times])
    width = max(pull.seconds, bins.step)
    before: Times = np.interp(bins.times - width, ends, begun, left=0.0)
    rates: Times = (begun[1:] - before) / width
    return rates


def _when(share: Times, target: float, bins: _Bins) -> float:
    """When a growing share reaches `target`, infinity if it does not."""
    after = int(np.searchsorted(share, target))
    if after >= bins.count:
        return float("inf")
    before = share[after - 1] if after else 0.0
    part = (target - before) / (share[after] - before) if share[after] > before else 1.0
    return float((after + part) * bins.step)


def _step(horizon: float) -> float:
    return next((s for s in _STEPS if horizon / s <= _MOST_STEPS), _STEPS[-1])


def _check(fleet: Fleet, pull: Pull, horizon: float) -> None:
    shares = (fleet.off, fleet.cut, *(share for _, share in fleet.rollout))
    times = (fleet.off_seconds, fleet.cut_at, fleet.cut_seconds, fleet.patience, pull.seconds)
    steps = np.diff(np.array(fleet.rollout), axis=0) if len(fleet.rollout) > 1 else np.zeros(1)
    rules = {
        "there must be at least one device": fleet.devices >= 1,
        "the horizon must be after the release": horizon > 0,
        "shares must be between 0 and 1": all(0 <= share <= 1 for share in shares),
        "the points of a rollout must increase in time and share": bool(fleet.rollout)
        and bool((steps >= 0).all()),
        "times cannot be negative": min(times) >= 0,
        "a device may check at most once a minute": (fleet.timer.on_unit_inactive or DAY) >= 60
        and fleet.timer.on_unit_inactive != 0,
        "a pull must cost something": pull.requests > 0 and pull.bytes >= 0,
    }
    for rule, holds in rules.items():
        if not holds:
            raise InputError(rule)
