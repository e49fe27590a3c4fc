"""The limit on a user's new projects, in this process.

It bounds how fast a user can fill the table and probe which ids are taken. Not shared through
Redis: with a few processes the bound is a few times the rate, which is enough.
"""

from __future__ import annotations

import time

from service.http.api_errors import rate_limited
from service.settings import Settings
from service.telemetry.metrics import Metrics
from streams.model.token_bucket import TokenBuckets

_USERS = 10_000


class CreationLimit:
    """Lets a user create as many projects a second as it may send posts, with the same bursts."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._is_off = settings.posts_per_second == 0
        self._metrics = metrics
        self._buckets = TokenBuckets[str](
            settings.posts_per_second, settings.posts_burst, time.monotonic, most=_USERS
        )

    def take(self, user_id: str) -> None:
        """Count one new project, or raise 429."""
        if self._is_off:
            return
        wait_s = self._buckets.take(user_id)
        if wait_s > 0:
            self._metrics.rate_limited.inc()
            raise rate_limited(wait_s, "Too many new projects; slow down")
