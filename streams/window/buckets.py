"""Token buckets that all processes share, in Redis. Callers decide what they limit."""

from __future__ import annotations

from streams.window.lua import script
from streams.window.redis_client import RedisClient


class Buckets:
    """Buckets by key; an unused bucket expires."""

    def __init__(self, client: RedisClient) -> None:
        self._client = client

    async def take(self, key: str, *, rate_per_s: float, burst: int) -> float:
        """Take a token and return 0.0, or return the seconds until there is one.

        Raises:
            WindowUnavailable: Redis does not answer.
        """
        wait_ms = await self._client.run(script("take_token"), key, str(rate_per_s), burst)
        return int(wait_ms) / 1000

    async def give_back(self, key: str, *, rate_per_s: float, burst: int) -> None:
        """Return an unused token; the bucket never holds more than `burst`.

        Raises:
            WindowUnavailable: Redis does not answer.
        """
        await self._client.run(script("give_token"), key, str(rate_per_s), burst)
