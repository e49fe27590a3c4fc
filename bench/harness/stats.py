"""Figures from samples: percentiles, medians, ratios. Pure."""

from __future__ import annotations

import statistics
from array import array
from collections.abc import Iterable, Sequence

import msgspec


class Latency(msgspec.Struct, frozen=True):
    """A distribution of durations, in milliseconds."""

    count: int
    p50_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float


def percentile(ordered: Sequence[int] | array[int], share: float) -> int:
    """Return the nearest-rank percentile of samples in ascending order.

    `share` is between 0 and 1. Raises `ValueError` without samples.
    """
    if not ordered:
        raise ValueError("no samples")
    if not 0.0 <= share <= 1.0:
        raise ValueError(f"not a share: {share}")
    rank = -(-len(ordered) * round(share * 1_000_000) // 1_000_000)
    return ordered[max(rank, 1) - 1]


def latency_of(samples_us: Iterable[int]) -> Latency | None:
    """Summarise samples in microseconds, in any order; None without samples."""
    ordered = array("q", sorted(samples_us))
    if not ordered:
        return None
    return Latency(
        count=len(ordered),
        p50_ms=percentile(ordered, 0.5) / 1000,
        p99_ms=percentile(ordered, 0.99) / 1000,
        p999_ms=percentile(ordered, 0.999) / 1000,
        max_ms=ordered[-1] / 1000,
    )


def median(values: Iterable[float | None]) -> float | None:
    """Return the median of the values that are not None, or None without any."""
    present = [value for value in values if value is not None]
    return statistics.median(present) if present else None


def ratio(value: float | None, base: float | None) -> float | None:
    """Return value / base; None when either is missing or the base is 0."""
    if value is None or not base:
        return None
    return value / base


def median_ratio(values: Sequence[float | None], bases: Sequence[float | None]) -> float | None:
    """Return the median of the ratios of pairs that were measured one after another.

    A machine's speed drifts. The two values of a pair see the same conditions, so their ratio is
    more precise than the ratio of two medians.
    """
    return median(ratio(value, base) for value, base in zip(values, bases, strict=False))


def per_million(seconds: float, events: int) -> float | None:
    """Return seconds per million events."""
    return seconds / events * 1_000_000 if events else None
