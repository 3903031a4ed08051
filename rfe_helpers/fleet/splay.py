"""The splay of a fleet's timer (RandomizedDelaySec): how much a mirror needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from rfe_helpers.fleet.rollout import Fleet, Mirror, Plan, Pull, plan
from rfe_helpers.fleet.timer import DAY


def smallest_splay(
    fleet: Fleet,
    pull: Pull,
    mirror: Mirror,
    *,
    longest: float = 7 * DAY,
    horizon: float = 7 * DAY,
    release: datetime | None = None,
    sample: int = 1_000_000,
) -> float:
    """The smallest RandomizedDelaySec (s) with which the mirror is not overloaded.

    The load is the mean over a minute, with an allowance for random variation. Found by bisection,
    to 1 %, with at most `sample` devices, each of which stands for several. Infinity if even
    `longest` is not enough; then the rollout itself has to be slower.

    >>> from rfe_helpers.fleet import Fleet, Mirror, Pull, figures, parse_timer, smallest_splay
    >>> shops = Fleet(50_000, parse_timer("OnCalendar=daily"))
    >>> splay = smallest_splay(shops, Pull(requests=45, bytes=667_000), Mirror(requests=500))
    >>> figures.least(splay)
    '1h 14min'
    """
    devices = min(fleet.devices, sample)
    factor = fleet.devices / devices
    costs = replace(
        pull,
        requests=pull.requests * factor,
        bytes=pull.bytes * factor,
        check_requests=pull.check_requests * factor,
        check_bytes=pull.check_bytes * factor,
    )
    per_second = min(mirror.requests / costs.requests, mirror.bytes / max(costs.bytes, 1e-9))
    # The highest of some thousand minutes is 3.5 standard deviations above the mean.
    allowance = 1 + 3.5 / float(60 * per_second) ** 0.5

    def is_enough(delay: float) -> bool:
        timer = replace(fleet.timer, randomized_delay=delay)
        sampled = replace(fleet, devices=devices, timer=timer)
        result = plan(sampled, costs, horizon=horizon, release=release, step=60.0)
        load = max(result.peak_requests / mirror.requests, result.peak_bytes / mirror.bytes)
        return bool(load <= allowance)

    if is_enough(0.0):
        return 0.0
    if not is_enough(longest):
        return float("inf")
    low, high = 0.0, longest
    while high - low > max(1.0, 0.01 * high):
        middle = (low + high) / 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high


def sweep(
    fleet: Fleet,
    pull: Pull,
    splays: Sequence[float],
    mirror: Mirror | None = None,
    **options: Any,
) -> dict[float, Plan]:
    """The plan for each of several values of RandomizedDelaySec (s), by value; `options` are the
    keyword arguments of `plan`.

    >>> from rfe_helpers.fleet import Fleet, Pull, parse_timer, sweep
    >>> shops = Fleet(10_000, parse_timer("OnCalendar=daily"))
    >>> plans = sweep(shops, Pull(requests=45, bytes=667_000), [0, 3600, 7200])
    >>> [round(each.half_staged / 60) for each in plans.values()]  # minutes
    [1441, 31, 61]
    """
    timers = {splay: replace(fleet.timer, randomized_delay=splay) for splay in splays}
    return {
        splay: plan(replace(fleet, timer=timer), pull, mirror, **options)
        for splay, timer in timers.items()
    }
