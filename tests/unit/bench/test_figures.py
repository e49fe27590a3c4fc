"""The benchmark's figures: percentiles, ratios, verdicts, counters, profiles."""

from __future__ import annotations

import pytest

from bench.harness.counters import difference
from bench.harness.profiling import summarise
from bench.harness.stats import latency_of, median, median_ratio, per_million, percentile, ratio
from bench.harness.targets import Target, judge


@pytest.mark.parametrize(
    ("share", "expected"), [(0.0, 1), (0.5, 50), (0.99, 99), (0.999, 100), (1.0, 100)]
)
def test_percentile_is_the_nearest_rank(share: float, expected: int) -> None:
    """The percentile is the smallest sample with at least that share of samples at or below it."""
    assert percentile(list(range(1, 101)), share) == expected


def test_percentile_of_nothing_is_an_error() -> None:
    """Without samples there is no percentile, not even 0."""
    with pytest.raises(ValueError):
        percentile([], 0.5)


def test_latency_sorts_and_converts() -> None:
    """Samples are microseconds in any order; figures are milliseconds."""
    latency = latency_of([3000, 1000, 2000])
    assert latency is not None
    assert (latency.count, latency.p50_ms, latency.max_ms) == (3, 2.0, 3.0)


def test_latency_of_nothing_is_none() -> None:
    """A run without deliveries has no latency."""
    assert latency_of([]) is None


def test_median_leaves_out_what_is_missing() -> None:
    """A round that failed does not count as zero."""
    assert median([3.0, None, 1.0]) == 2.0


def test_ratio_of_pairs_is_taken_per_round() -> None:
    """Values of one round are compared, since a slow minute slows both."""
    assert median_ratio([1.0, 20.0, 3.0], [2.0, 40.0, 3.0]) == 0.5


@pytest.mark.parametrize(("value", "base"), [(None, 1.0), (1.0, None), (1.0, 0.0)])
def test_ratio_without_a_side_is_none(value: float | None, base: float | None) -> None:
    """Without one of the two values there is no ratio."""
    assert ratio(value, base) is None


def test_per_million_scales_to_events() -> None:
    """CPU seconds are scaled to a million deliveries."""
    assert per_million(2.0, 400_000) == 5.0


@pytest.mark.parametrize(
    ("target", "measured", "verdict"),
    [
        (Target("W", "x", at_most=0.6), 0.6, "reached"),
        (Target("W", "x", at_most=0.6), 0.61, "missed"),
        (Target("W", "x", at_least=10), 10.0, "reached"),
        (Target("W", "x", at_least=10), 9.9, "missed"),
        (Target("W", "x", at_least=10), None, "not measured"),
    ],
)
def test_a_value_at_the_bound_reaches_the_target(
    target: Target, measured: float | None, verdict: str
) -> None:
    """Bounds are inclusive; without a measured value a target is neither reached nor missed."""
    assert judge(target, measured).verdict == verdict


def test_a_target_has_one_bound() -> None:
    """A target with no bound or with two is a mistake in the script."""
    with pytest.raises(ValueError):
        Target("W", "x")


def test_counters_show_only_what_grew() -> None:
    """Calls from before the run do not count."""
    assert difference({"xadd": 2, "ping": 1}, {"xadd": 5, "ping": 1, "xread": 1}) == {
        "xadd": 3,
        "xread": 1,
    }


def test_a_profile_counts_a_recursive_function_once() -> None:
    """A function that is twice in a stack counts once, so that no share exceeds 1."""
    profile = summarise(["f (a.py:2);f (a.py:3) 3", "main (a.py:1) 1"])
    assert profile.samples == 4
    assert dict(profile.total)["f (a.py)"] == 0.75
    assert dict(profile.own)["main (a.py)"] == 0.25
