"""Report Redis as failed and as recovered to a `Health`, as its probe does."""

from __future__ import annotations

from streams.model.shards import SHARDS
from streams.runtime.health import DOES_NOT_ANSWER, Health, ServerReport
from tests.support.waiting import wait_until

ALL_SHARDS = frozenset(range(SHARDS))


def fail_redis(health: Health) -> None:
    """Report that the only server does not answer."""
    health.saw_servers([ServerReport("redis", ALL_SHARDS, DOES_NOT_ANSWER, answers=False)])


async def recover_redis(health: Health) -> None:
    """Report that the only server takes writes until that has held and counts as recovery."""

    def recovered() -> bool:
        health.saw_servers([ServerReport("redis", ALL_SHARDS)])
        return health.redis_up

    await wait_until(recovered, what="the recovery of Redis")
