import io

import numpy as np
import pytest
from matplotlib.figure import Figure

from rfe_helpers.fleet.plots import plot_break_even, plot_completion, plot_load, plot_splay
from rfe_helpers.fleet.rollout import Fleet, Mirror, Plan, Pull, plan
from rfe_helpers.fleet.splay import sweep
from rfe_helpers.fleet.timer import parse_timer

PULL = Pull(requests=100, bytes=1e6)
MIRROR = Mirror(requests=500)


@pytest.fixture(scope="module")
def plans() -> dict[str, Plan]:
    def with_splay(splay: str) -> Plan:
        timer = parse_timer(f"OnCalendar=daily\nRandomizedDelaySec={splay}")
        return plan(Fleet(20_000, timer, patience=1e6), PULL, MIRROR, window=36_000)

    return {"no splay": with_splay("0"), "6 h splay": with_splay("6h")}


def png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def test_load(plans: dict[str, Plan]) -> None:
    figure = plot_load(plans, MIRROR)
    axes = figure.axes[0]
    lines = axes.get_lines()
    for name, line in zip(plans, lines, strict=False):
        assert str(line.get_label()).startswith(name)
        assert np.max(line.get_ydata()) == pytest.approx(plans[name].peak_requests)
    assert lines[-1].get_label() == "mirror: 500/s"
    # Told apart without colour.
    assert len({line.get_linestyle() for line in lines[:-1]}) == len(plans)
    assert axes.get_xlabel() == "time after the release (h)"
    assert axes.get_ylabel() == "requests asked for (1/s)"
    assert png(figure).startswith(b"\x89PNG")


def test_completion(plans: dict[str, Plan]) -> None:
    axes = plot_completion(plans).axes[0]
    for name, line in zip(plans, axes.get_lines(), strict=False):
        assert line.get_label() == name
        assert np.max(line.get_ydata()) == pytest.approx(100)
    assert axes.get_legend_handles_labels()[1][-1] == "window opens at 10.0 h"
    assert axes.get_ylabel() == "devices that have staged (%)"


def test_splay() -> None:
    timer = parse_timer("OnCalendar=daily")
    plans = sweep(Fleet(5_000, timer), PULL, [0.0, 3600.0, 7200.0], window=90_000)
    figure = plot_splay(plans, MIRROR)
    peak, missed = figure.axes
    assert list(peak.get_lines()[0].get_xdata()) == [0, 1, 2]
    assert list(missed.get_lines()[0].get_ydata()) == [100 * p.missed for p in plans.values()]
    assert missed.get_xlabel() == "splay, RandomizedDelaySec (h)"
    assert png(figure).startswith(b"\x89PNG")


def test_break_even() -> None:
    figure = plot_break_even({"objects": PULL, "a delta": Pull(10, 5e5)}, Mirror(500, 1e8))
    fetched, time = figure.axes
    layer, objects, delta = fetched.get_lines()
    assert [line.get_label() for line in (layer, objects, delta)] == [
        "a layer",
        "objects",
        "a delta",
    ]
    assert list(objects.get_ydata()) == [1.0, 1.0]  # MB
    assert np.all(np.diff(layer.get_ydata()) > 0)
    assert time.get_lines()[1].get_ydata()[0] == pytest.approx(200)  # ms: 100 requests of 500/s
    assert fetched.get_xscale() == fetched.get_yscale() == "log"
    assert len({line.get_linestyle() for line in (layer, objects, delta)}) == 3
    assert png(figure).startswith(b"\x89PNG")
