"""Token buckets that all processes share, in Redis. What they limit is the caller's matter."""

from __future__ import annotations

from streams.window.lua import script
from streams.window.redis_client import RedisClient


class Buckets:
    """Buckets by key; one that is not used disappears."""

    def __init__(self, client: RedisClient) -> None:
        self._client = client

    async def take(self, key: str, *, rate_per_s: float, burst: int) -> float:
        """Take a token: 0.0, or the seconds until there is one.

        Raises:
            WindowUnavailable: Redis does not answer.
        """
        wait_ms = await self._client.run(script("take_token"), key, str(rate_per_s), burst)
        return int(wait_ms) / 1000

    async def give_back(self, key: str, *, rate_per_s: float, burst: int) -> None:
        """Give a token back that was taken for nothing; the bucket never holds more than `burst`.

        Raises:
            WindowUnavailable: Redis does not answer.
        """
        await self._client.run(script("give_token"), key, str(rate_per_s), burst)
