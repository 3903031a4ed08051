"""The splay that a mirror needs, against closed forms."""

import pytest

from rfe_helpers.fleet.rollout import Fleet, Mirror, Pull
from rfe_helpers.fleet.splay import smallest_splay, sweep
from rfe_helpers.fleet.timer import DAY, parse_timer

# A pull that takes no time, and checks that cost nothing, as closed forms assume.
QUICK = Pull(requests=100, bytes=1e6, seconds=0, check_requests=0, check_bytes=0)
DAILY = "OnCalendar=daily\nAccuracySec=1us\n"
N = 200_000


def fleet(timer: str = DAILY, devices: int = N) -> Fleet:
    return Fleet(devices, parse_timer(timer))


def test_the_smallest_splay() -> None:
    """N pulls of 100 requests in R seconds: R = N * 100 / limit."""
    result = smallest_splay(fleet(DAILY), QUICK, Mirror(requests=2_000))
    assert result == pytest.approx(N * 100 / 2_000, rel=0.05)
    limited = Mirror(requests=1e9, bytes=2e7)
    assert smallest_splay(fleet(DAILY), QUICK, limited) == pytest.approx(10_000, rel=0.05)
    assert smallest_splay(fleet(DAILY), QUICK, Mirror(requests=1e9)) == 0
    assert smallest_splay(fleet(DAILY), QUICK, Mirror(requests=10)) == float("inf")


def test_a_sample_stands_for_the_fleet() -> None:
    large = fleet(DAILY, 2_000_000)
    result = smallest_splay(large, QUICK, Mirror(requests=20_000), sample=100_000)
    assert result == pytest.approx(10_000, rel=0.05)


def test_a_sweep_over_splays() -> None:
    result = sweep(fleet(DAILY, 10_000), QUICK, [0.0, 3600.0, 7200.0], window=1.5 * DAY)
    peaks = [plan.peak_requests for plan in result.values()]
    assert list(result) == [0.0, 3600.0, 7200.0]
    assert peaks == sorted(peaks, reverse=True)
