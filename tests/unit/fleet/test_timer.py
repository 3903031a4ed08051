"""Calendar expressions and time spans against `systemd-analyze`; starts against the manual."""

import random
import re
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from rfe_helpers.core import run
from rfe_helpers.errors import InputError
from rfe_helpers.fleet.timer import (
    DAY,
    Schedule,
    Timer,
    moment,
    parse_calendar,
    parse_timer,
    span,
    utc,
)

MONDAY = datetime(2026, 1, 5, tzinfo=UTC)
EXPRESSIONS = [
    "minutely",
    "hourly",
    "daily",
    "weekly",
    "monthly",
    "quarterly",
    "semiannually",
    "yearly",
    "*-*-* 01:30:00",
    "*-*-* 01:30:00 UTC",
    "Sun *-*-* 00:00:00",
    "Mon..Fri 08:00",
    "Mon,Wed,Sat..Sun 12:15:30",
    "Thursday,Fri 2026-*-01..07 11:12:13",
    "*:0/15",
    "*:*:0/20",
    "00/2:15",
    "3..5/2:10,40",
    "2026-02-03",
    "02-28..29 06:00",
    "*-02~03 05:00",
    "*-*~1 23:59:59",
    "*-1/3-15 00:00",
    "2027-1,6-1",
]


def elapses_of_systemd(expression: str, count: int) -> list[datetime]:
    base_time = f"--base-time={MONDAY:%Y-%m-%d %H:%M:%S} UTC"
    argv = ["systemd-analyze", "calendar", f"--iterations={count}", base_time, expression]
    report = run.run(argv, env={"TZ": "UTC"}).stdout
    times = re.findall(r"(?:elapse|Iter\. #\d+): \w{3} ([-0-9]+ [:0-9]+) UTC", report)
    return [datetime.fromisoformat(text).replace(tzinfo=UTC) for text in times]


def elapses_computed(expression: str, count: int) -> list[datetime]:
    parsed = parse_calendar(expression)
    days = 10.0
    while True:
        # Strictly after the base time, as in systemd.
        elapses = parsed.elapses(MONDAY, 1.0, days * DAY)
        if len(elapses) >= count or days > 2500:
            return [MONDAY + timedelta(seconds=float(s)) for s in elapses[:count]]
        days *= 8


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_calendar_expressions_elapse_as_in_systemd(expression: str) -> None:
    expected = elapses_of_systemd(expression, 6)
    assert expected
    elapses = elapses_computed(expression, len(expected))
    assert elapses == expected[: len(elapses)]
    assert len(elapses) == min(len(expected), 6)


def test_random_calendar_expressions() -> None:
    """Random expressions, against systemd."""
    rng = random.Random(7)

    def part(lowest: int, highest: int) -> str:
        first, last = sorted(rng.sample(range(lowest, highest + 1), 2))
        step = rng.randint(1, highest - first)
        return rng.choice(
            ("*", f"{first}", f"{first},{last}", f"{first}..{last}", f"{first}/{step}")
        )

    for _ in range(40):
        weekdays = rng.choice(["", "Mon..Wed ", "Sat,Sun ", "Fri "])
        date = f"*-{part(1, 12)}-{part(1, 28)}"
        expression = f"{weekdays}{date} {part(0, 23)}:{part(0, 59)}:{part(0, 59)}"
        expected = elapses_of_systemd(expression, 4)
        assert elapses_computed(expression, len(expected)) == expected, expression


@pytest.mark.parametrize(
    "text",
    [
        "",
        "noon",
        "25:00",
        "*-13-01",
        "Mon..",
        "Fri..Mon",
        "*-*-* 00:00 Europe/Berlin",
        "*-*~1/2",
        "10:00:00.5",
        "*-*-*-*",
        "5..3:00",
        "*:*/0",
        "1 2 3 4",
        "20/5:00",
    ],
)
def test_unsupported_calendar_expressions_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="is not a supported calendar expression") as caught:
        parse_calendar(text)
    assert "systemd-analyze calendar" in caught.value.remedy


@pytest.mark.parametrize(
    "text", ["90", "1h 30min", "2d", "1w", "1h30m", "500ms", "1us", "1.5h", "3 hours", "1month"]
)
def test_time_spans_are_those_of_systemd(text: str) -> None:
    report = run.run(["systemd-analyze", "timespan", text]).stdout
    microseconds = re.search(r"μs: (\d+)", report)
    assert microseconds is not None
    assert span(text) == pytest.approx(int(microseconds[1]) / 1e6)


@pytest.mark.parametrize("text", ["", "soon", "5 parsecs", "1h,30min", "-5"])
def test_what_is_not_a_time_span_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="is not a time span"):
        span(text)


@pytest.mark.parametrize(
    ("text", "hours"),
    [("25h 30min", 25.5), ("Tue 01:30", 25.5), ("daily", 24), ("01:30", 1.5), ("3600", 1)],
)
def test_a_moment_is_a_span_or_the_first_elapse(text: str, hours: float) -> None:
    monday = datetime(2026, 1, 5, tzinfo=UTC)
    assert moment(text, monday, 7 * DAY) == hours * 3600


@pytest.mark.parametrize("text", ["soon", "", "2d", "Tue 01:30", "2025-01-01"])
def test_a_moment_must_be_before_the_end(text: str) -> None:
    with pytest.raises(InputError):
        moment(text, datetime(2026, 1, 5, tzinfo=UTC), DAY)


def test_a_unit_file() -> None:
    timer = parse_timer(
        """\
        [Unit]
        Description=x
        [Timer]
        # a comment
        OnCalendar=daily
        OnCalendar=
        OnBootSec=1h
        OnUnitInactiveSec=1d
        OnCalendar=Sun 03:00
        RandomizedDelaySec=2h
        FixedRandomDelay=true
        AccuracySec=1us
        Persistent=yes
        Unit=other.service
        """
    )
    assert [c.text for c in timer.calendars] == ["Sun 03:00"]
    assert (timer.on_boot, timer.on_unit_inactive) == (3600, DAY)
    assert (timer.randomized_delay, timer.fixed_random_delay) == (7200, True)
    assert (timer.accuracy, timer.persistent) == (1e-6, True)


@pytest.mark.parametrize("text", ["OnBootSec=1h", "", "OnUnitActiveSec=1d", "OnCalendar=never"])
def test_timers_that_the_model_does_not_support_are_refused(text: str) -> None:
    with pytest.raises(InputError):
        parse_timer(text)


@pytest.mark.parametrize("key", ["OnCalendar", "OnBootSec", "OnUnitInactiveSec"])
def test_an_empty_setting_of_a_drop_in_resets_all(key: str) -> None:
    text = f"OnBootSec=1h\nOnUnitInactiveSec=1d\nOnCalendar=daily\n{key}=\nOnCalendar=03:00"
    assert parse_timer(text) == parse_timer("OnCalendar=03:00")


def test_a_date() -> None:
    assert utc("2026-01-05") == MONDAY
    assert utc("2026-01-05T02:00+02:00") == MONDAY
    with pytest.raises(InputError):
        utc("monday")


# starts ---------------------------------------------------------------------------------------


def schedule_of(timer: Timer, devices: int = 20_000) -> Schedule:
    return Schedule(timer, MONDAY, 30 * DAY, devices, np.random.default_rng(3))


def everyone(schedule: Schedule) -> np.ndarray:
    return np.arange(schedule.perturb.size)


def test_accuracy_moves_a_start_to_the_machines_own_second_of_the_minute() -> None:
    schedule = schedule_of(parse_timer("OnCalendar=daily"))
    indices = everyone(schedule)
    first = schedule.following(np.zeros(indices.shape), indices)
    second = schedule.following(first, indices)
    assert first.min() >= DAY
    assert first.max() <= DAY + 60
    assert first.mean() == pytest.approx(DAY + 30, abs=1)
    np.testing.assert_allclose(second - first, DAY)


def test_a_fine_accuracy_is_kept() -> None:
    for accuracy in (1e-6, 0.5, 5.0, 30.0):
        schedule = schedule_of(Timer((parse_calendar("daily"),), accuracy=accuracy))
        indices = everyone(schedule)
        late = schedule.following(np.zeros(indices.shape), indices) - DAY
        assert late.min() >= 0
        assert late.max() <= accuracy


def test_the_delay_is_drawn_again_for_each_elapse_unless_it_is_fixed() -> None:
    for fixed in (False, True):
        timer = parse_timer(f"OnCalendar=daily\nRandomizedDelaySec=6h\nFixedRandomDelay={fixed}")
        schedule = schedule_of(timer)
        indices = everyone(schedule)
        first = schedule.following(np.zeros(indices.shape), indices) % DAY
        second = schedule.following(first + DAY, indices) % DAY
        assert first.mean() == pytest.approx(3 * 3600 + 30, rel=0.02)
        assert np.allclose(first, second, atol=60) == fixed


def test_a_delay_longer_than_the_period_skips_elapses() -> None:
    """The next elapse is the one after the actual start, not after the planned one."""
    schedule = schedule_of(parse_timer("OnCalendar=hourly\nRandomizedDelaySec=1d\nAccuracySec=1us"))
    indices = everyone(schedule)
    first = schedule.following(np.zeros(indices.shape), indices)
    gap = schedule.following(first, indices) - first
    # Half an hour to the next full hour, half a day of delay.
    assert gap.mean() == pytest.approx(DAY / 2 + 1800, rel=0.02)


def test_devices_out_of_step() -> None:
    schedule = schedule_of(parse_timer("OnUnitInactiveSec=1d\nAccuracySec=1us"))
    first = schedule.steady(everyone(schedule))
    assert (first.min() >= 0, first.max() <= DAY) == (True, True)
    assert first.mean() == pytest.approx(DAY / 2, rel=0.02)


def test_a_calendars_delay_from_before_the_release_is_still_running() -> None:
    schedule = schedule_of(parse_timer("OnCalendar=daily\nRandomizedDelaySec=1d\nAccuracySec=1us"))
    first = schedule.steady(everyone(schedule))
    assert first.min() > 0
    assert first.mean() == pytest.approx(DAY / 2, rel=0.02)


def test_a_boot() -> None:
    monotonic = schedule_of(parse_timer("OnBootSec=1h\nOnUnitInactiveSec=1d\nAccuracySec=1us"))
    indices = everyone(monotonic)
    boot = np.full(indices.shape, 1000.0)
    np.testing.assert_allclose(monotonic.after_boot(boot, 0.0, indices), 4600, atol=1e-3)
    for persistent, expected in ((True, 2 * DAY + 60), (False, 3 * DAY)):
        text = f"OnCalendar=daily\nAccuracySec=1us\nPersistent={persistent}"
        schedule = schedule_of(parse_timer(text))
        late = np.full(indices.shape, 2 * DAY + 60)
        np.testing.assert_allclose(schedule.after_boot(late, 100.0, indices), expected, atol=1e-3)


def test_nothing_to_catch_up_for_a_short_outage() -> None:
    schedule = schedule_of(parse_timer("OnCalendar=daily\nAccuracySec=1us\nPersistent=yes"))
    indices = everyone(schedule)
    boot = np.full(indices.shape, DAY + 500.0)
    np.testing.assert_allclose(schedule.after_boot(boot, DAY + 100, indices), 2 * DAY, atol=1e-3)
