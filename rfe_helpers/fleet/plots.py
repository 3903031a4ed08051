"""Plots of a rollout, drawn on white so that they look the same in light and dark themes.

Curves differ in line style as well as in colour, and are named in the legend.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np

from rfe_helpers.fleet import layers
from rfe_helpers.fleet.rollout import Mirror, Plan, Pull

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


# Okabe and Ito's colours, told apart with any colour vision; they differ in lightness too.
STYLES: tuple[dict[str, Any], ...] = (
    {"color": "#0072b2", "linestyle": "-"},
    {"color": "#d55e00", "linestyle": "--"},
    {"color": "#000000", "linestyle": ":"},
    {"color": "#009e73", "linestyle": "-."},
)
_LIMIT: dict[str, Any] = {"color": "#9f9f9f", "linestyle": "-", "linewidth": 5, "alpha": 0.6}
_HOUR = 3600.0
_POINTS = 2000


def plot_load(plans: Mapping[str, Plan], mirror: Mirror | None = None) -> Figure:
    """Requests per second over time, one curve per plan (by name), with the mirror's limit.

    The scale is logarithmic if the peaks of the plans differ by more than a factor of 20.

    >>> from rfe_helpers.fleet import Fleet, Pull, plan, plot_load
    >>> from rfe_helpers.workbook import Picture
    >>> plans = {"shops": plan(Fleet(1_000), Pull(requests=45, bytes=667_000))}
    >>> Picture.drawn(plot_load(plans), "Load over time")
    Load over time
    """
    figure, (axes,) = figure_of()
    for (name, plan), style in zip(plans.items(), cycle(STYLES), strict=False):
        hours, asked = _thinned(plan, "asked")
        axes.plot(hours, asked, label=f"{name}: peak {plan.peak_requests:,.0f}/s", **style)
    if mirror is not None and np.isfinite(mirror.requests):
        axes.axhline(mirror.requests, label=f"mirror: {mirror.requests:,.0f}/s", **_LIMIT)
    peaks = [plan.peak_requests for plan in plans.values()]
    if max(peaks) > 20 * min(peaks):
        axes.set_yscale("log")
        axes.set_ylim(bottom=1)
    axes.set_ylabel("requests asked for (1/s)")
    return _finished(figure, axes, "Load on the mirror")


def plot_completion(plans: Mapping[str, Plan]) -> Figure:
    """The share of devices that have staged the update over time, one curve per plan (by name).

    >>> from rfe_helpers.fleet import Fleet, Pull, plan, plot_completion
    >>> figure = plot_completion({"shops": plan(Fleet(1_000), Pull(requests=45, bytes=667_000))})
    >>> figure.savefig("completion.png")
    """
    figure, (axes,) = figure_of()
    for (name, plan), style in zip(plans.items(), cycle(STYLES), strict=False):
        hours, staged = _thinned(plan, "staged")
        axes.plot(hours, 100 * staged, label=name, **style)
    windows = {plan.window for plan in plans.values() if plan.window < plan.horizon}
    for window in windows:
        axes.axvline(window / _HOUR, label=f"window opens at {window / _HOUR:.1f} h", **_LIMIT)
    axes.set_ylabel("devices that have staged (%)")
    axes.set_ylim(0, 102)
    return _finished(figure, axes, "Completion")


def plot_splay(plans: Mapping[float, Plan], mirror: Mirror | None = None) -> Figure:
    """Peak load and the share that misses the window against the splay (s), from `sweep`.

    >>> from rfe_helpers.fleet import Fleet, Pull, plot_splay, sweep
    >>> plans = sweep(Fleet(1_000), Pull(requests=45, bytes=667_000), [0, 3600, 7200])
    >>> figure = plot_splay(plans)
    """
    figure, axes = figure_of(rows=2)
    hours = np.array(list(plans)) / _HOUR
    peaks = [plan.peak_requests for plan in plans.values()]
    axes[0].plot(hours, peaks, marker="o", **STYLES[0])
    if mirror is not None and np.isfinite(mirror.requests):
        axes[0].axhline(mirror.requests, label=f"mirror: {mirror.requests:,.0f}/s", **_LIMIT)
        axes[0].legend(frameon=False)
    axes[0].set_yscale("log")
    axes[0].set_ylabel("peak (requests/s)")
    axes[1].plot(hours, [100 * p.missed for p in plans.values()], marker="s", **STYLES[1])
    axes[1].set_ylabel("miss the window (%)")
    axes[1].set_ylim(-2, 102)
    axes[1].set_xlabel("splay, RandomizedDelaySec (h)")
    axes[0].set_title("Peak load and missed windows by splay", loc="left")
    for subplot in axes:
        _framed(subplot)
    return figure


def plot_break_even(costs: Mapping[str, Pull], mirror: Mirror) -> Figure:
    """When a layer is cheaper: its cost by its size, beside that of an update in other forms (by
    name). Above the bytes that a device fetches, below the time of the server that this takes.

    >>> from rfe_helpers.fleet import Mirror, Pull, plot_break_even
    >>> objects = Pull(requests=45, bytes=667_000)
    >>> figure = plot_break_even({"objects": objects}, Mirror(requests=5000, bytes=1.25e9))
    """
    figure, axes = figure_of(rows=2)
    sizes = np.geomspace(1e4, 1e9, 300)
    by_layer = [layers.pull([each]) for each in sizes]

    def draw(subplot: Axes, value: Callable[[Pull], float]) -> None:
        subplot.plot(sizes / 1e6, [value(each) for each in by_layer], label="a layer", **STYLES[0])
        for (name, cost), style in zip(costs.items(), cycle(STYLES[1:]), strict=False):
            subplot.axhline(value(cost), label=name, **style)
        _framed(subplot).set(xscale="log", yscale="log")
        subplot.xaxis.set_major_formatter("{x:g}")
        subplot.yaxis.set_major_formatter("{x:g}")

    draw(axes[0], lambda cost: cost.bytes / 1e6)
    draw(axes[1], lambda cost: 1000 * layers.busy(cost, mirror))
    axes[0].set_ylabel("a device fetches (MB)")
    axes[1].set_ylabel("the server's time (ms)")
    axes[1].set_xlabel("size of the layer that is fetched, compressed (MB)")
    axes[0].set_title("A layer, and the same update in other forms", loc="left")
    axes[0].legend(framealpha=0.9, edgecolor="none")
    return figure


def figure_of(rows: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure and its axes, one below the other, without pyplot's global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.6 * rows), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0])


def _finished(figure: Figure, axes: Axes, title: str) -> Figure:
    axes.set_xlabel("time after the release (h)")
    axes.set_xlim(left=0)
    axes.set_title(title, loc="left")
    _framed(axes)
    axes.legend(framealpha=0.9, edgecolor="none")
    return figure


def _framed(axes: Axes) -> Axes:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    return axes


def _thinned(plan: Plan, curve: str) -> tuple[np.ndarray, np.ndarray]:
    """Hours and values of a curve until shortly after all have staged, each the highest of several
    steps."""
    times, values = plan.curves["time"], plan.curves[curve]
    last = min(plan.horizon, 1.05 * plan.all_staged)
    count = max(2, int(np.searchsorted(times, last)) + 1)
    times, values = times[:count], values[:count]
    group = max(1, len(times) // _POINTS)
    end = len(times) // group * group
    highest = values[:end].reshape(-1, group).max(axis=1)
    return times[:end].reshape(-1, group)[:, -1] / _HOUR, highest
