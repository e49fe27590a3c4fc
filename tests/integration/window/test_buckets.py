"""docs/protocol.md §6, limits: the bucket that all processes share."""

from __future__ import annotations

from itertools import count

import pytest

from streams.window import keys
from streams.window.buckets import Buckets
from streams.window.redis_client import RedisClient

_users = count(1)


@pytest.fixture
def key() -> str:
    """A bucket that no other test uses."""
    return keys.post_bucket("buckets", f"u-{next(_users)}")


async def test_a_returned_token_can_be_taken_again_and_the_burst_stays_the_bound(
    redis_client: RedisClient, key: str
) -> None:
    """A post refused with 503 neither uses nor adds a token."""
    buckets = Buckets(redis_client)

    async def take() -> float:
        # So slow that no token comes by itself.
        return await buckets.take(key, rate_per_s=0.01, burst=2)

    assert [await take(), await take()] == [0.0, 0.0]
    assert await take() > 0
    await buckets.give_back(key, rate_per_s=0.01, burst=2)
    assert await take() == 0
    for _ in range(5):
        await buckets.give_back(key, rate_per_s=0.01, burst=2)
    assert [await take(), await take()] == [0.0, 0.0]
    assert await take() > 0


async def test_a_token_returned_to_an_expired_bucket_does_not_create_it(
    redis_client: RedisClient, key: str
) -> None:
    """Redis keeps no bucket of users who do not post."""
    await Buckets(redis_client).give_back(key, rate_per_s=1, burst=2)
    assert await redis_client.call("EXISTS", key) == 0
