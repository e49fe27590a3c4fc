"""The figures of a load run: latencies in fixed buckets, counters, and what is reported. Pure.

Memory does not grow with a run. Whether what arrived was right is in `load_verdict.py`.
"""

from __future__ import annotations

from array import array
from collections import Counter

import msgspec

# 32 buckets for each doubling: a bucket is at most 3 % wide.
_SUB_BITS = 5
_SUB = 1 << _SUB_BITS
_MOST_US = (1 << 36) - 1
_BUCKETS = (37 - _SUB_BITS) * _SUB
_MAX_REASONS = 50


class LoadFailed(Exception):
    """The run could not begin: the text says why."""


class Latencies:
    """A histogram of microseconds; about 8 KiB, whatever it counts.

    Values up to 32 µs are exact, larger ones rounded down by 3 % at most; longer ones than 19
    hours count as 19 hours.
    """

    def __init__(self) -> None:
        self._counts = array("Q", bytes(8 * _BUCKETS))
        self.count = 0
        self.most_us = 0

    def record(self, latency_us: int) -> None:
        """Count one value; a negative one counts as 0."""
        value = min(max(latency_us, 0), _MOST_US)
        self._counts[_bucket_of(value)] += 1
        self.count += 1
        self.most_us = max(self.most_us, value)

    def quantile_us(self, share: float) -> int:
        """Return the value that a share of all are not above, or 0 when there are none."""
        wanted, passed = max(share * self.count, 1), 0
        for bucket, number in enumerate(self._counts):
            passed += number
            if passed >= wanted:
                return _least_of(bucket)
        return 0

    def summary(self) -> LatencySummary | None:
        """Return what is reported; None when nothing was counted."""
        if not self.count:
            return None
        p50, p90, p99 = (self.quantile_us(share) / 1000 for share in (0.5, 0.9, 0.99))
        return LatencySummary(self.count, p50, p90, p99, self.most_us / 1000)


def _bucket_of(value_us: int) -> int:
    shift = max(value_us.bit_length() - _SUB_BITS - 1, 0)
    return (shift << _SUB_BITS) + (value_us >> shift)


def _least_of(bucket: int) -> int:
    if bucket < 2 * _SUB:
        return bucket
    shift = (bucket >> _SUB_BITS) - 1
    return (bucket - (shift << _SUB_BITS)) << shift


class LatencySummary(msgspec.Struct, frozen=True, rename="camel"):
    """Latencies in milliseconds."""

    count: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float


class LoadCounters:
    """What one run counts while it goes on. `late`: posts that began later than they were due."""

    def __init__(self) -> None:
        self.due = 0
        self.begun = 0
        self.posted = 0
        self.late = 0
        self.unsent = 0
        self.deliveries = 0
        self.live = 0
        self.reconnects = 0
        self.received_bytes = 0
        self.post_errors: Counter[str] = Counter()
        self.interruptions: Counter[str] = Counter()
        self.post_latency = Latencies()
        self.event_latency = Latencies()

    def note_error(self, name: str) -> None:
        """Count a post that failed."""
        _count(self.post_errors, name)

    def note_interruption(self, why: str) -> None:
        """Count a stream that ended or could not be opened."""
        _count(self.interruptions, why)


def _count(counter: Counter[str], name: str) -> None:
    # The texts come from a peer: without end there could be any number of them.
    known = name in counter or len(counter) < _MAX_REASONS
    counter[name[:120] if known else "other"] += 1


class ConnectionVerdict(msgspec.Struct, frozen=True, rename="camel"):
    """What was wrong with what one connection received, over all its reconnects."""

    project: str
    number: int
    deliveries: int
    reconnects: int
    lost: int
    repeated: int
    reordered: int
    changed: int

    @property
    def is_clean(self) -> bool:
        """Whether nothing was wrong."""
        return not (self.lost or self.repeated or self.reordered or self.changed)


class Verdict(msgspec.Struct, frozen=True, rename="camel"):
    """All connections against the history. `examples` name the first things that were wrong."""

    clean: bool
    lost: int
    repeated: int
    reordered: int
    changed: int
    examples: tuple[str, ...]
    connections: tuple[ConnectionVerdict, ...]


class LoadReport(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """The end of a run. `own_cpu` is this process's share of one core: near 1, it was the limit."""

    clean: bool
    connections: int
    seconds: float
    posted: int
    posts_per_second: float
    late: int
    unsent: int
    deliveries: int
    deliveries_per_second: float
    received_bytes: int
    reconnects: int
    post_latency: LatencySummary | None
    event_latency: LatencySummary | None
    post_errors: dict[str, int]
    interruptions: dict[str, int]
    own_cpu: float
    verdict: Verdict
