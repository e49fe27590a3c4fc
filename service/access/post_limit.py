"""The limit on a user's posts in a project, the same across processes.

Kept in Redis. While Redis is away each process counts by itself, so no post fails for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time

import msgspec

from service.http.api_errors import rate_limited
from service.settings import Settings
from service.telemetry.metrics import Metrics
from streams.eventlog import EventLog
from streams.model.errors import WindowUnavailable
from streams.model.shards import shard_of
from streams.model.token_bucket import TokenBucket, TokenBuckets
from streams.window import keys

_TIMEOUT_S = 0.25
_LOCAL_BUCKETS = 10_000


class Token(msgspec.Struct, frozen=True):
    """A post that was counted, in the bucket `own` of this process, or in Redis when it is None."""

    project_id: str
    user_id: str
    own: TokenBucket | None


class PostLimit:
    """Lets a user post `posts_per_second` in a project, with bursts."""

    def __init__(self, log: EventLog, settings: Settings, metrics: Metrics) -> None:
        self._log = log
        self._rate = settings.posts_per_second
        self._burst = settings.posts_burst
        self._metrics = metrics
        # Used while Redis is away.
        self._local = TokenBuckets[tuple[str, str]](
            self._rate, self._burst, time.monotonic, most=_LOCAL_BUCKETS
        )

    @property
    def is_off(self) -> bool:
        """Whether there is no limit: then `take` does nothing."""
        return self._rate == 0

    async def take(self, project_id: str, user_id: str) -> Token | None:
        """Count one post, or raise 429. None when there is no limit."""
        if self.is_off:
            return None
        own: TokenBucket | None = None
        wait_s = await self._shared(project_id, user_id)
        if wait_s is None:
            own = self._local.of((project_id, user_id))
            wait_s = own.take()
        if wait_s > 0:
            self._metrics.rate_limited.inc()
            raise rate_limited(wait_s, "Too many posts; slow down")
        return Token(project_id, user_id, own)

    async def give_back(self, token: Token) -> None:
        """Undo the count of a post that failed for a reason that is not its sender's."""
        if token.own is not None:
            token.own.give_back()
            return
        with contextlib.suppress(WindowUnavailable, TimeoutError):
            async with asyncio.timeout(_TIMEOUT_S):
                await self._log.buckets.give_back(
                    keys.post_bucket(token.project_id, token.user_id),
                    rate_per_s=self._rate,
                    burst=self._burst,
                )

    async def _shared(self, project_id: str, user_id: str) -> float | None:
        if not self._log.health.can_write(shard_of(project_id)):
            return None
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                return await self._log.buckets.take(
                    keys.post_bucket(project_id, user_id), rate_per_s=self._rate, burst=self._burst
                )
        except (WindowUnavailable, TimeoutError):
            return None
