"""Rates: moving averages of messages a second, over what was observed."""

from __future__ import annotations

import pytest

from service.console.rates import Rates


def _observe(rates: Rates, per_second: int, seconds: int, *, start_s: int = 0, seq: int = 0) -> int:
    """Sample a project once a second; return its last seq."""
    for second in range(seconds + 1):
        rates.sample(start_s + second, [("p", seq + per_second * second)])
    return seq + per_second * seconds


@pytest.mark.parametrize("seconds", [1, 5, 60])
def test_a_steady_rate_is_shown_from_the_first_second_on(seconds: int) -> None:
    """The averages are over what was observed, not over silence before it."""
    rates = Rates()
    _observe(rates, 7, seconds)
    assert rates.of("p") == pytest.approx((7, 7))


def test_the_short_average_follows_a_change_faster() -> None:
    """Ten seconds of silence after a minute: the short one has nearly forgotten."""
    rates = Rates()
    seq = _observe(rates, 10, 60)
    _observe(rates, 0, 20, start_s=60, seq=seq)
    short, long = rates.of("p")
    assert short < 2 < 6 < long < 10


def test_nothing_is_known_of_a_project_at_its_first_sample() -> None:
    """What a tail had when it was made is no rate, nor is a project that nobody reads."""
    rates = Rates()
    rates.sample(0, [("p", 1_000_000)])
    assert rates.of("p") == rates.of("unknown") == (0, 0)


def test_a_restored_log_is_no_negative_rate() -> None:
    """The head goes back when a backup is restored."""
    rates = Rates()
    rates.sample(0, [("p", 100)])
    rates.sample(1, [("p", 40)])
    assert rates.of("p") == (0, 0)
    rates.sample(2, [("p", 45)])
    assert rates.of("p").short > 0


def test_projects_that_left_are_forgotten() -> None:
    """Memory is bounded by the projects that have readers now."""
    rates = Rates()
    _observe(rates, 5, 3)
    rates.sample(4, [("q", 0)])
    assert rates.of("p") == (0, 0)
    rates.clear()
    assert rates.of("q") == (0, 0)
