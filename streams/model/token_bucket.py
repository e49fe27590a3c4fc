"""Token buckets: rate limits within one process. Pure; the caller supplies the clock.

Rate limits across processes are kept in Redis (`streams/window/buckets.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from streams.model.lru_map import LruMap

K = TypeVar("K", bound=Hashable)


class TokenBucket:
    """Allows bursts of `burst` and a steady `rate_per_s`. A rate of 0 turns the limit off."""

    __slots__ = ("_burst", "_clock", "_filled_at_s", "_rate_per_s", "_tokens")

    def __init__(self, rate_per_s: float, burst: float, clock: Callable[[], float]) -> None:
        """Begin full; `clock` returns monotonic seconds."""
        if rate_per_s < 0 or (rate_per_s > 0 and burst < 1):
            raise ValueError("a bucket needs a rate of at least 0 and room for one token")
        self._rate_per_s = rate_per_s
        self._burst = float(burst)
        self._clock = clock
        self._tokens = self._burst
        self._filled_at_s = clock()

    def take(self) -> float:
        """Take one token and return 0.0; when there is none, return the seconds until there is."""
        if self._rate_per_s == 0:
            return 0.0
        self._fill()
        if self._tokens >= 1:
            self._tokens -= 1
            return 0.0
        return (1 - self._tokens) / self._rate_per_s

    def give_back(self) -> None:
        """Return an unused token; the bucket never holds more than the burst."""
        if self._rate_per_s > 0:
            self._tokens = min(self._burst, self._tokens + 1)

    def _fill(self) -> None:
        now_s = self._clock()
        # A clock that steps back must neither remove tokens nor count the same time twice.
        if now_s > self._filled_at_s:
            gained = (now_s - self._filled_at_s) * self._rate_per_s
            self._tokens = min(self._burst, self._tokens + gained)
            self._filled_at_s = now_s


class TokenBuckets(Generic[K]):
    """One token bucket for each of at most `most` keys.

    Above that the least recently used key is evicted; it starts again with a full bucket.
    """

    def __init__(
        self, rate_per_s: float, burst: float, clock: Callable[[], float], *, most: int
    ) -> None:
        """All buckets have the same rate and burst; `clock` returns monotonic seconds."""
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._clock = clock
        self._buckets: LruMap[K, TokenBucket] = LruMap(most)

    def of(self, key: K) -> TokenBucket:
        """Return the bucket of a key."""
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = TokenBucket(self._rate_per_s, self._burst, self._clock)
            self._buckets.put(key, bucket)
        return bucket

    def take(self, key: K) -> float:
        """Take one token of a key; see `TokenBucket.take`."""
        return self.of(key).take()
