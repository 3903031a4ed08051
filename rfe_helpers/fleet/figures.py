"""The figures of a plan in words and units, for a table in a notebook or a terminal."""

from __future__ import annotations

from collections.abc import Mapping

from rfe_helpers.core.units import size
from rfe_helpers.fleet import layers
from rfe_helpers.fleet.cost import RECORDED, RECORDED_AS
from rfe_helpers.fleet.rollout import Plan, Pull

_UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def answers(plans: Mapping[str, Plan]) -> list[tuple[str, ...]]:
    """The rows of a table: a question, then its answer from each plan, all as text.

    The plans, by name, must have the same window and horizon.

    >>> from rfe_helpers.fleet import Fleet, Pull, figures, plan
    >>> pull = Pull(requests=45, bytes=667_000)
    >>> plans = {"one site": plan(Fleet(1_000), pull), "ten": plan(Fleet(10_000), pull)}
    >>> [row[0] for row in figures.answers(plans)]
    ['highest load', 'highest traffic', ...]
    """
    columns = [_answers(plan) for plan in plans.values()]
    questions = list(columns[0]) if columns else []
    return [(question, *(column[question] for column in columns)) for question in questions]


def by_splay(plans: Mapping[float, Plan]) -> dict[str, Plan]:
    """The plans of `sweep` by a name for their splay, such as "splay 6h".

    >>> from rfe_helpers.fleet import Fleet, Pull, figures, sweep
    >>> plans = sweep(Fleet(1_000), Pull(requests=45, bytes=667_000), [0, 21_600])
    >>> list(figures.by_splay(plans))
    ['no splay', 'splay 6h']
    """
    return {f"splay {duration(splay)}" if splay else "no splay": p for splay, p in plans.items()}


def cost_line(cost: Pull) -> str:
    """What one device costs the mirror, and the source of the figures if they are recorded.

    >>> from rfe_helpers.fleet import Pull, figures
    >>> figures.cost_line(Pull(requests=45, bytes=667_000))
    'One device: 45 requests, 667.0 kB'
    """
    sources = {RECORDED: RECORDED_AS, layers.RECORDED.cost: layers.RECORDED.source}
    source = f" ({sources[cost]})" if cost in sources else ""
    return f"One device: {cost.requests:,.0f} requests, {size(cost.bytes)}{source}"


def duration(seconds: float) -> str:
    """Seconds as systemd writes a time span, "1d 1h 30min" or "35s"; from an hour on to the
    minute.

    >>> from rfe_helpers.fleet import figures
    >>> figures.duration(91_800)
    '1d 1h 30min'
    """
    if seconds == float("inf"):
        return "never"
    rest = round(seconds) if seconds < 3600 else 60 * round(seconds / 60)
    parts = []
    for length, unit in _UNITS:
        number, rest = divmod(rest, length)
        parts += [f"{number}{unit}"] if number else []
    return " ".join(parts) or "0s"


def least(splay: float) -> str:
    """The result of `smallest_splay` (s) in words.

    >>> from rfe_helpers.fleet import figures
    >>> figures.least(0), figures.least(5400)
    ('none is needed', '1h 30min')
    """
    if splay == 0:
        return "none is needed"
    if splay == float("inf"):
        return "none is long enough; let the devices update one group after the other"
    return duration(splay)


def rate(value: float, unit: str) -> str:
    """A rate with three significant figures or more: "1,164 requests/s", "13.2 MB/s".

    >>> from rfe_helpers.fleet import figures
    >>> figures.rate(1164, "requests")
    '1,164 requests/s'
    """
    return f"{value:,.0f} {unit}/s" if value >= 100 else f"{value:.3g} {unit}/s"


def _answers(plan: Plan) -> dict[str, str]:
    def when(moment: float) -> str:
        late = f"not within {duration(plan.horizon)}"
        return late if moment == float("inf") else f"after {duration(moment)}"

    return {
        "highest load": rate(plan.peak_requests, "requests"),
        "highest traffic": rate(plan.peak_bytes / 1e6, "MB"),
        "load exceeded 1 % of the time": rate(plan.p99_requests, "requests"),
        "longest wait for the mirror": duration(plan.longest_wait),
        "pulls that failed while waiting": f"{plan.failed_pulls:,.0f}",
        "half have staged": when(plan.half_staged),
        "99 % have staged": when(plan.most_staged),
        "all have staged": when(plan.all_staged),
        "window opens": when(plan.window),
        "miss the window": f"{plan.missed:.1%}, {plan.missed * plan.devices:,.0f} devices",
    }
