"""The model of a rollout against closed forms."""

import json
from dataclasses import replace

import numpy as np
import pytest

from rfe_helpers.errors import InputError
from rfe_helpers.fleet.rollout import Fleet, Mirror, Plan, Pull, plan
from rfe_helpers.fleet.timer import DAY, parse_timer

# A pull that takes no time, and checks that cost nothing, as closed forms assume.
QUICK = Pull(requests=100, bytes=1e6, seconds=0, check_requests=0, check_bytes=0)
DAILY = "OnCalendar=daily\nAccuracySec=1us\n"
N = 200_000


def fleet(timer: str = DAILY, devices: int = N, **options: object) -> Fleet:
    return Fleet(devices, parse_timer(timer), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("hours", [1, 6, 24])
def test_uniform_splay(hours: int) -> None:
    """From the elapse on, N/R starts per second for R seconds."""
    splay = hours * 3600.0
    result = plan(fleet(f"{DAILY}RandomizedDelaySec={hours}h", 1_000_000), QUICK, step=1.0)
    asked = result.curves["asked"]
    busy = asked[int(0.01 * splay) : int(0.99 * splay)]
    assert busy.mean() == pytest.approx(1_000_000 / splay * 100, rel=0.01)
    assert result.half_staged == pytest.approx(splay / 2, rel=0.01)
    assert result.most_staged == pytest.approx(0.99 * splay, rel=0.01)
    assert result.all_staged == pytest.approx(splay, rel=0.01)
    assert asked.sum() == pytest.approx(1_000_000 * 100, rel=1e-9)


@pytest.mark.parametrize("share", [0.25, 0.5, 0.9])
def test_the_share_that_misses_the_window(share: float) -> None:
    result = plan(fleet(f"{DAILY}RandomizedDelaySec=1d", 1_000_000), QUICK, window=share * DAY)
    assert result.missed == pytest.approx(1 - share, rel=0.01)


def test_out_of_step_devices_check_evenly() -> None:
    result = plan(fleet("OnUnitInactiveSec=1d\nAccuracySec=1us", 1_000_000), QUICK)
    assert result.half_staged == pytest.approx(DAY / 2, rel=0.01)
    assert result.all_staged == pytest.approx(DAY, rel=0.01)


def test_without_splay_a_site_pulls_at_once() -> None:
    timer = "OnBootSec=1h\nOnUnitInactiveSec=1d"
    result = plan(fleet(timer, together=True), QUICK, step=1.0)
    # Only AccuracySec, a minute, spreads them.
    assert result.peak_requests == pytest.approx(N / 60 * 100, rel=0.1)
    assert result.all_staged == pytest.approx(3660, abs=2)


def test_a_pull_spreads_its_load_over_its_own_duration() -> None:
    result = plan(fleet(DAILY), replace(QUICK, seconds=600), window=2 * DAY)
    assert result.peak_requests == pytest.approx(N / 600 * 100, rel=1e-6)
    assert result.peak_bytes == pytest.approx(N / 600 * 1e6, rel=1e-6)
    assert result.half_staged == pytest.approx(DAY + 605, abs=10)


@pytest.mark.parametrize(
    "mirror", [Mirror(requests=50_000), Mirror(bytes=5e8), Mirror(requests=50_000, bytes=1e12)]
)
def test_everybody_at_once_is_served_at_the_mirrors_pace(mirror: Mirror) -> None:
    """500 pulls a second: the k-th device has waited k/500 seconds."""
    patient = fleet(DAILY, patience=1e6)
    result = plan(patient, QUICK, mirror, step=1.0, horizon=2 * DAY)
    assert result.served_peak_requests == pytest.approx(50_000)
    assert result.half_staged - DAY == pytest.approx(N / 500 / 2, rel=0.01)
    assert result.all_staged - DAY == pytest.approx(N / 500, rel=0.01)
    assert result.longest_wait == pytest.approx(N / 500, rel=0.01)
    assert result.failed_pulls == 0


def test_a_pull_that_waits_too_long_is_retried_the_next_day() -> None:
    """500 a second for 100 seconds: 50,000 of 200,000 a day."""
    result = plan(fleet(DAILY, patience=100), QUICK, Mirror(requests=50_000), step=1.0)
    staged = result.curves["staged"]
    days = [staged[int((day + 0.5) * DAY)] for day in range(1, 6)]
    assert days == pytest.approx([0.25, 0.5, 0.75, 1, 1], rel=0.02)
    assert result.failed_pulls == pytest.approx(N * (0.75 + 0.5 + 0.25), rel=0.02)
    assert result.longest_wait <= 100


def test_checks_take_their_share_of_the_mirror() -> None:
    """Before their wave all devices check each day: a load without any pull."""
    checking = replace(QUICK, check_requests=2, check_bytes=10)
    slow = fleet(f"{DAILY}RandomizedDelaySec=1d", rollout=((6 * DAY, 0.0), (6 * DAY, 1.0)))
    result = plan(slow, checking)
    day = result.curves["asked"][int(2 * DAY / result.step) : int(3 * DAY / result.step)]
    assert day.mean() == pytest.approx(2 * N / DAY, rel=0.02)


def test_devices_that_have_the_update_keep_checking() -> None:
    pull = Pull(requests=1, bytes=0, seconds=0, check_requests=2, check_bytes=0)
    for timer in (f"{DAILY}RandomizedDelaySec=1d", "OnUnitInactiveSec=1d\nAccuracySec=1us"):
        curve = plan(fleet(timer), pull).curves["asked"]
        later = curve[len(curve) // 2 :]
        assert later.mean() == pytest.approx(2 * N / DAY, rel=0.02), timer


def test_a_rollout_in_steps_and_one_along_a_line() -> None:
    hourly = "OnCalendar=hourly\nRandomizedDelaySec=1h\nAccuracySec=1us"
    steps = ((0.0, 0.0), (0.0, 0.1), (2 * DAY, 0.1), (2 * DAY, 1.0))
    result = plan(fleet(hourly, rollout=steps), QUICK)
    assert result.curves["staged"][int(DAY / result.step)] == pytest.approx(0.1, rel=0.02)
    assert result.all_staged == pytest.approx(2 * DAY + 5400, abs=2000)
    result = plan(fleet(hourly, rollout=((0.0, 0.0), (2 * DAY, 1.0))), QUICK)
    assert result.half_staged == pytest.approx(DAY + 3600, rel=0.02)


def test_a_rollout_that_stops_early() -> None:
    result = plan(fleet(f"{DAILY}RandomizedDelaySec=1h", rollout=((0.0, 0.3),)), QUICK)
    assert result.curves["staged"][-1] == pytest.approx(0.3, rel=0.02)
    assert result.half_staged == float("inf")
    assert result.missed == pytest.approx(0.7, rel=0.02)


def test_devices_that_are_off_catch_up() -> None:
    timer = f"{DAILY}RandomizedDelaySec=1h\nPersistent=yes"
    result = plan(fleet(timer, off=0.2, off_seconds=4 * DAY), QUICK)
    staged = result.curves["staged"]
    # After a day, every device that was on has it, and so have the others that have come back.
    assert staged[int(1.5 * DAY / result.step)] == pytest.approx(0.8 + 0.2 * 1.5 / 4, rel=0.02)
    assert result.all_staged == pytest.approx(4 * DAY + 3600, rel=0.02)


def test_a_power_cut_puts_a_site_in_step() -> None:
    timer = "OnBootSec=1h\nOnUnitInactiveSec=1d\nAccuracySec=1us"
    cut = fleet(timer, cut=0.5, cut_at=6 * 3600.0, cut_seconds=600.0)
    result = plan(cut, QUICK)
    # A quarter of the devices that are cut off had it before; the rest come together.
    together = 0.5 * 0.75 * N
    assert result.peak_requests * result.step / 100 == pytest.approx(together, rel=0.02)
    assert result.curves["time"][result.curves["asked"].argmax()] == pytest.approx(25_800, abs=10)
    assert result.all_staged == pytest.approx(DAY, rel=0.01)


def test_the_same_seed_the_same_plan() -> None:
    devices = fleet(f"{DAILY}RandomizedDelaySec=1h", 10_000)
    first, same = plan(devices, QUICK), plan(devices, QUICK)
    other = plan(devices, QUICK, seed=2)
    assert first == same
    np.testing.assert_array_equal(first.curves["asked"], same.curves["asked"])
    assert (first.curves["asked"] != other.curves["asked"]).any()


def test_as_json() -> None:
    result = plan(fleet(DAILY, 10, rollout=((0.0, 0.0),)), QUICK)
    figures = json.loads(json.dumps(result.to_dict()))
    assert figures["devices"] == 10
    assert figures["all_staged"] is None
    assert set(figures) == set(Plan.__dataclass_fields__) - {"curves"}


@pytest.mark.parametrize(
    "options",
    [
        {"devices": 0},
        {"off": 1.5},
        {"cut": -0.1},
        {"rollout": ((0.0, 0.5), (10.0, 0.2))},
        {"rollout": ((10.0, 0.1), (5.0, 0.2))},
        {"rollout": ()},
        {"patience": -1},
        {"timer": "OnUnitInactiveSec=0\nAccuracySec=0"},
    ],
)
def test_fleets_that_contradict_themselves(options: dict[str, object]) -> None:
    with pytest.raises(InputError):
        plan(fleet(**options), QUICK)  # type: ignore[arg-type]


def test_an_overloaded_mirror_serves_no_more_than_its_limit() -> None:
    """Even the checks alone are more than it can answer."""
    checking = replace(QUICK, check_requests=5, check_bytes=10)
    result = plan(fleet(DAILY, patience=100), checking, Mirror(requests=1_000), step=1.0)
    assert result.peak_requests > 1e6
    assert result.served_peak_requests == pytest.approx(1_000)


def test_a_pull_without_requests_and_a_horizon_at_the_release() -> None:
    with pytest.raises(InputError):
        plan(fleet(), Pull(requests=0, bytes=1))
    with pytest.raises(InputError):
        plan(fleet(), QUICK, horizon=0)
