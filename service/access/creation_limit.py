"""The limit on a user's new projects, in this process.

It bounds how fast a user can fill the table, and can try which ids are taken. Not shared by Redis:
a few times the rate, where there are a few processes, bounds that as well.
"""

from __future__ import annotations

import time
from collections import OrderedDict

from service.access.limits import TokenBucket
from service.http.api_errors import rate_limited
from service.settings import Settings
from service.telemetry.metrics import Metrics

_USERS = 10_000


class CreationLimit:
    """Lets a user create as many projects a second as it may send posts, with the same bursts."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._rate = settings.posts_per_second
        self._burst = settings.posts_burst
        self._metrics = metrics
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()

    def take(self, user_id: str) -> None:
        """Count one new project, or raise 429."""
        if self._rate == 0:
            return
        bucket = self._buckets.get(user_id)
        if bucket is None:
            bucket = self._buckets[user_id] = TokenBucket(self._rate, self._burst, time.monotonic)
            if len(self._buckets) > _USERS:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(user_id)
        wait_s = bucket.take()
        if wait_s > 0:
            self._metrics.rate_limited.inc()
            raise rate_limited(wait_s, "Too many new projects; slow down")
