from dataclasses import replace

import pytest

from rfe_helpers.fleet import figures, layers
from rfe_helpers.fleet.cost import RECORDED
from rfe_helpers.fleet.rollout import Fleet, Pull
from rfe_helpers.fleet.splay import sweep
from rfe_helpers.fleet.timer import parse_timer, span

TIMER = parse_timer("OnCalendar=03:00")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (35.4, "35s"),
        (3599, "59min 59s"),
        (3600, "1h"),
        (91_800, "1d 1h 30min"),
        (172_799, "2d"),
        (604_800, "7d"),
    ],
)
def test_durations_read_as_systemd_writes_them(seconds: float, text: str) -> None:
    assert figures.duration(seconds) == text
    assert span(text) == pytest.approx(seconds, abs=60)


def test_what_never_happens() -> None:
    assert figures.duration(float("inf")) == "never"
    assert "one group after the other" in figures.least(float("inf"))
    assert figures.least(0) == "none is needed"
    assert figures.least(7200) == "2h"


def test_a_table_has_one_column_per_splay_and_every_answer_a_unit() -> None:
    plans = sweep(Fleet(5_000, TIMER), Pull(100, 1e6), [0.0, 7200.0], window=4 * 3600.0)
    by_name = figures.by_splay(plans)
    assert list(by_name) == ["no splay", "splay 2h"]
    rows = {row[0]: row[1:] for row in figures.answers(by_name)}
    assert rows["window opens"] == ("after 4h", "after 4h")
    assert rows["miss the window"][0] == "0.0%, 0 devices"
    assert rows["all have staged"][1].startswith("after 5h")
    assert all(answer.endswith("requests/s") for answer in rows["highest load"])
    assert all(answer.endswith("MB/s") for answer in rows["highest traffic"])


def test_an_update_that_does_not_reach_all() -> None:
    stopped = Fleet(5_000, TIMER, rollout=((0.0, 0.3),))
    plans = sweep(stopped, Pull(100, 1e6), [0.0], horizon=86400.0 * 2)
    rows = {row[0]: row[1] for row in figures.answers(figures.by_splay(plans))}
    assert rows["half have staged"] == "not within 2d"


def test_figures_say_where_they_come_from_only_if_they_are_recorded() -> None:
    assert "as recorded" in figures.cost_line(RECORDED)
    assert "a layer of its own" in figures.cost_line(layers.RECORDED.cost)
    measured = figures.cost_line(replace(RECORDED, requests=1_234.0, bytes=5.6e6))
    assert measured == "One device: 1,234 requests, 5.6 MB"
