"""When systemd timers elapse: the settings of a [Timer] section and the moments that follow.

From systemd.timer(5), systemd.time(7) and systemd's timer.c and sd-event.c (v252): a new randomized
delay is drawn for every elapse and added to it, then AccuracySec moves the moment to the machine's
own point of the minute. Times are seconds after an origin, in UTC; an array has one element for
each device.
"""

from __future__ import annotations

import calendar
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rfe_helpers.errors import InputError

Times = NDArray[np.float64]
Indices = NDArray[np.intp]

DAY = 86400.0
_UNITS = {
    **dict.fromkeys(("usec", "us", "µs"), 1e-6),
    **dict.fromkeys(("msec", "ms"), 1e-3),
    **dict.fromkeys(("", "seconds", "second", "sec", "s"), 1.0),
    **dict.fromkeys(("minutes", "minute", "min", "m"), 60.0),
    **dict.fromkeys(("hours", "hour", "hr", "h"), 3600.0),
    **dict.fromkeys(("days", "day", "d"), DAY),
    **dict.fromkeys(("weeks", "week", "w"), 7 * DAY),
    **dict.fromkeys(("months", "month", "M"), 365.25 / 12 * DAY),
    **dict.fromkeys(("years", "year", "y"), 365.25 * DAY),
}
_SHORTHANDS = {
    "minutely": "*-*-* *:*:00",
    "hourly": "*-*-* *:00:00",
    "daily": "*-*-* 00:00:00",
    "monthly": "*-*-01 00:00:00",
    "weekly": "Mon *-*-* 00:00:00",
    "yearly": "*-01-01 00:00:00",
    "annually": "*-01-01 00:00:00",
    "quarterly": "*-01,04,07,10-01 00:00:00",
    "semiannually": "*-01,07-01 00:00:00",
}
_SPAN_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?) *([A-Za-zµ]*)")
_WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
# The grids on which sd-event places wake-ups that may be late, coarsest first.
_GRIDS = (60.0, 10.0, 1.0, 0.25)


def span(text: str) -> float:
    """Parse a time span such as "1h 30min", "90" or "2d" into seconds. Raises InputError.

    >>> from rfe_helpers.fleet import span
    >>> span("1h 30min")
    5400.0
    """
    parts = _SPAN_PART.findall(text)
    rest = _SPAN_PART.sub("", text).strip()
    unknown = [unit for _, unit in parts if unit not in _UNITS]
    if not parts or rest or unknown:
        raise InputError(
            f"{text!r} is not a time span",
            remedy='write it as systemd does, for example "1h 30min"',
        )
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


@dataclass(frozen=True)
class Calendar:
    """A calendar expression (OnCalendar=), in UTC and whole seconds."""

    text: str
    weekdays: frozenset[int]
    years: frozenset[int]
    months: frozenset[int]
    days: frozenset[int]
    from_end: bool
    seconds_of_day: tuple[int, ...] = field(repr=False)

    def elapses(self, origin: datetime, start: float, end: float) -> Times:
        """All elapses in [start, end), in seconds after `origin`, sorted."""
        first = origin + timedelta(seconds=start)
        day = first.replace(hour=0, minute=0, second=0, microsecond=0)
        moments: list[float] = []
        last = origin + timedelta(seconds=end)
        while day < last:
            if self._has(day):
                offset = (day - origin).total_seconds()
                moments += [offset + second for second in self.seconds_of_day]
            day += timedelta(days=1)
        times = np.array(moments, dtype=float)
        return times[(times >= start) & (times < end)]

    def _has(self, day: datetime) -> bool:
        length = calendar.monthrange(day.year, day.month)[1]
        number = length - day.day + 1 if self.from_end else day.day
        return (
            day.weekday() in self.weekdays
            and day.year in self.years
            and day.month in self.months
            and number in self.days
        )


def parse_calendar(text: str) -> Calendar:
    """Parse a calendar expression such as "Mon..Fri *-*-* 02:00:00". Raises InputError.

    Supports systemd.time(7) except for time zones other than UTC, fractions of seconds, and
    repetitions counted from the end of a month.
    """
    words = _SHORTHANDS.get(text.strip().lower(), text).split()
    if words and words[-1].upper() == "UTC":
        words.pop()
    try:
        weekdays = _weekdays(words.pop(0)) if words and words[0][0].isalpha() else range(7)
        date = words.pop(0) if words and ("-" in words[0] or "~" in words[0]) else "*-*-*"
        clock = words.pop(0) if words else "00:00:00"
        if words or not text.strip():
            raise ValueError
        years, months, days, from_end = _date(date)
        hours, minutes, seconds = _clock(clock)
    except (ValueError, IndexError):
        raise InputError(
            f"{text!r} is not a supported calendar expression",
            remedy="check it with `systemd-analyze calendar`, and give it in UTC",
        ) from None
    moments = sorted(h * 3600 + m * 60 + s for h in hours for m in minutes for s in seconds)
    return Calendar(
        text=text,
        weekdays=frozenset(weekdays),
        years=frozenset(years),
        months=frozenset(months),
        days=frozenset(days),
        from_end=from_end,
        seconds_of_day=tuple(moments),
    )


def moment(text: str, origin: datetime, end: float) -> float:
    """Seconds after `origin` of a time span, or of the first elapse of a calendar expression.

    Raises InputError if `text` is neither, or if the moment is later than `end` (s).

    >>> from rfe_helpers.fleet import DAY, moment, utc
    >>> moment("Tue *-*-* 01:30:00", utc("2026-01-05"), 7 * DAY)
    91800.0
    """
    try:
        seconds = span(text)
    except InputError:
        elapses = parse_calendar(text).elapses(origin, 1.0, end)
        seconds = float(elapses[0]) if elapses.size else np.inf
    if seconds > end:
        raise InputError(
            f"{text!r} is after the end of the simulated time",
            remedy=f"give a moment within {end / DAY:.1f} days, or a longer horizon",
        )
    return seconds


@dataclass(frozen=True)
class Timer:
    """A [Timer] section; times in seconds, None for a setting that is not given."""

    calendars: tuple[Calendar, ...] = ()
    on_boot: float | None = None
    on_unit_inactive: float | None = None
    randomized_delay: float = 0.0
    fixed_random_delay: bool = False
    accuracy: float = 60.0
    persistent: bool = False


def parse_timer(text: str) -> Timer:
    r"""Parse a timer from the text of its unit, or from settings alone.

    Settings that do not matter to the model (Unit=, WakeSystem=) are ignored. Raises InputError
    for a trigger that the model does not support, or a timer that never elapses twice.

    >>> from rfe_helpers.fleet import parse_timer
    >>> timer = parse_timer("OnCalendar=*-*-* 02:00:00\nRandomizedDelaySec=6h")
    >>> timer.randomized_delay
    21600.0
    """
    values: dict[str, Any] = {}
    calendars: list[Calendar] = []
    for line in text.splitlines():
        key, equals, value = (part.strip() for part in line.partition("="))
        if not equals or key.startswith(("#", ";")):
            continue
        if key in ("OnActiveSec", "OnStartupSec", "OnUnitActiveSec", "OnClockChange"):
            raise InputError(f"the model does not support timers with {key}=")
        if key.startswith("On") and not value:  # resets all of them, as in a drop-in
            calendars, values["on_boot"], values["on_unit_inactive"] = [], None, None
        elif key == "OnCalendar":
            calendars.append(parse_calendar(value))
        elif key in _SPANS:
            values[_SPANS[key]] = span(value)
        elif key in _FLAGS:
            values[_FLAGS[key]] = value.lower() in ("yes", "true", "on", "1", "y", "t")
    timer = Timer(calendars=tuple(calendars), **values)
    if not timer.calendars and timer.on_unit_inactive is None:
        raise InputError(
            "the timer never elapses twice",
            remedy="give OnCalendar= or OnUnitInactiveSec=",
        )
    return timer


_SPANS = {
    "OnBootSec": "on_boot",
    "OnUnitInactiveSec": "on_unit_inactive",
    "RandomizedDelaySec": "randomized_delay",
    "AccuracySec": "accuracy",
}
_FLAGS = {"FixedRandomDelay": "fixed_random_delay", "Persistent": "persistent"}


class Schedule:
    """A timer on many devices: the moments at which each of them starts the service.

    `perturb` is a device's point of the minute, `fixed` its delay if FixedRandomDelay is set. All
    times are seconds after `origin`; a moment after `end` may be given as infinity.
    """

    def __init__(
        self, timer: Timer, origin: datetime, end: float, devices: int, rng: np.random.Generator
    ) -> None:
        self.timer = timer
        self.rng = rng
        self._burn_in = 3 * timer.randomized_delay
        start = -self._burn_in - 366 * DAY if _is_sparse(timer) else -self._burn_in - 8 * DAY
        parts = [c.elapses(origin, start, end) for c in timer.calendars]
        known = np.unique(np.concatenate(parts)) if parts else np.empty(0)
        self.elapses: Times = np.append(known, np.inf)
        self.perturb = rng.uniform(0, 60, devices).astype(np.float32)
        fixed = timer.fixed_random_delay and timer.randomized_delay > 0
        self.fixed = rng.uniform(0, timer.randomized_delay, devices) if fixed else None

    def after_boot(self, boot: Times, off_since: float, indices: Indices) -> Times:
        """The first start after a boot; a persistent timer catches up on a missed elapse."""
        moments = np.full(boot.shape, np.inf)
        if self.timer.on_boot is not None:
            moments = boot + self.timer.on_boot
        if self.timer.calendars:
            upcoming = self._next_elapse(boot)
            if self.timer.persistent:
                missed = self._next_elapse(np.full(boot.shape, off_since)) <= boot
                upcoming = np.where(missed, boot, upcoming)
            moments = np.minimum(moments, upcoming)
        return self._delayed(moments, indices)

    def steady(self, indices: Indices) -> Times:
        """The first start after 0 of devices that have been up for long and are out of step."""
        if self.timer.on_unit_inactive is None:
            return self._steady_calendar(indices)
        shortest = self.timer.on_unit_inactive
        longest = shortest + (0.0 if self.fixed is not None else self.timer.randomized_delay)
        # A moment falls into a long interval more often than into a short one.
        drawn = self.rng.uniform(shortest**2, longest**2, indices.shape) ** 0.5
        if self.fixed is not None:
            drawn = drawn + self.fixed[indices]
        moments = self.rng.random(indices.shape) * drawn
        if self.timer.calendars:
            moments = np.minimum(moments, self._steady_calendar(indices))
        return self._accurate(moments, indices)

    def following(self, last: Times, indices: Indices) -> Times:
        """The start after the one at `last`, if the service ends at once."""
        moments = np.full(last.shape, np.inf)
        if self.timer.on_unit_inactive is not None:
            moments = last + self.timer.on_unit_inactive
        if self.timer.calendars:
            moments = np.minimum(moments, self._next_elapse(last))
        return self._delayed(moments, indices)

    def _steady_calendar(self, indices: Indices) -> Times:
        """Start early enough before 0 that delays longer than a period settle."""
        moments = self._delayed(self._next_elapse(np.full(indices.shape, -self._burn_in)), indices)
        while (early := np.flatnonzero(moments <= 0)).size:
            moments[early] = self._delayed(self._next_elapse(moments[early]), indices[early])
        return moments

    def _next_elapse(self, moments: Times) -> Times:
        elapses: Times = self.elapses[np.searchsorted(self.elapses[:-1], moments, side="right")]
        return elapses

    def _delayed(self, moments: Times, indices: Indices) -> Times:
        if self.fixed is not None:
            moments = moments + self.fixed[indices]
        elif self.timer.randomized_delay > 0:
            moments = moments + self.rng.uniform(0, self.timer.randomized_delay, moments.shape)
        return self._accurate(moments, indices)

    def _accurate(self, earliest: Times, indices: Indices) -> Times:
        """sd-event's sleep_between: the machine's own point on the coarsest grid that fits."""
        latest = earliest + self.timer.accuracy
        if self.timer.accuracy < 1e-3:
            return latest
        if self.timer.accuracy >= _GRIDS[0]:  # a point of the coarsest grid always fits
            return self._before(latest, self.perturb[indices], _GRIDS[0])
        chosen, left = latest.copy(), np.ones(latest.shape, dtype=bool)
        for grid in _GRIDS:
            point = self._before(latest, self.perturb[indices] % grid, grid)
            fits = left & (point >= earliest)
            chosen[fits] = point[fits]
            left &= ~fits
            if not left.any():
                break
        return chosen

    @staticmethod
    def _before(latest: Times, shift: NDArray[np.float32], grid: float) -> Times:
        """The last points, not after `latest`, of grids that begin at `shift`."""
        points: Times = latest - shift
        points /= grid
        np.floor(points, out=points)
        points *= grid
        points += shift
        return points


def _is_sparse(timer: Timer) -> bool:
    """Whether weeks may pass between two elapses."""
    return any(len(c.days) < 31 or len(c.months) < 12 for c in timer.calendars)


def _weekdays(text: str) -> set[int]:
    days: set[int] = set()
    for part in text.split(","):
        first, dots, last = part.partition("..")
        begin = _WEEKDAYS.index(first[:3].lower())
        until = _WEEKDAYS.index(last[:3].lower()) if dots else begin
        if until < begin:
            raise ValueError
        days |= set(range(begin, until + 1))
    return days


def _date(text: str) -> tuple[set[int], set[int], set[int], bool]:
    head, tilde, tail = text.partition("~")
    parts = [*head.split("-"), tail] if tilde else text.split("-")
    year, month, day = parts if len(parts) == 3 else ["*", *parts]
    if tilde and "/" in day:
        raise ValueError
    years = _numbers(year, 1970, 2200)
    return years, _numbers(month, 1, 12), _numbers(day, 1, 31), bool(tilde)


def _clock(text: str) -> tuple[set[int], set[int], set[int]]:
    parts = text.split(":")
    hour, minute, second = parts if len(parts) == 3 else [*parts, "00"]
    return _numbers(hour, 0, 23), _numbers(minute, 0, 59), _numbers(second, 0, 59)


def _numbers(text: str, lowest: int, highest: int) -> set[int]:
    """Parse a component: "*", "5", "1,15", "1..5", each with "/n" for every nth from there."""
    numbers: set[int] = set()
    for part in text.split(","):
        head, slash, step = part.partition("/")
        first, dots, last = head.partition("..")
        begin = lowest if head == "*" else int(first)
        until = highest if head == "*" or (slash and not dots) else int(last or first)
        every = int(step) if slash else 1
        if not lowest <= begin <= until <= highest or every < 1:
            raise ValueError
        if slash and begin + every > until:  # systemd refuses a repetition that never occurs
            raise ValueError
        numbers |= set(range(begin, until + 1, every))
    return numbers


def utc(text: str) -> datetime:
    """Parse an ISO date and time into an aware datetime in UTC. Raises InputError.

    >>> from rfe_helpers.fleet import utc
    >>> utc("2026-01-05 12:00")
    datetime.datetime(2026, 1, 5, 12, 0, tzinfo=datetime.timezone.utc)
    """
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        raise InputError(
            f"{text!r} is not a date and time", remedy="write it as 2026-01-31 08:00"
        ) from None
    return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)
