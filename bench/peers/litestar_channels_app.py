"""A peer: Litestar's channels plugin with `RedisChannelsStreamBackend`, as its manual has it.

Started by python_app.py under uvicorn. Not part of seqstream.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from typing import Any

import redis.asyncio as redis
from litestar import Litestar, Request, get, post
from litestar.channels import ChannelsPlugin
from litestar.channels.backends.redis import RedisChannelsStreamBackend
from litestar.response import ServerSentEvent

_client = redis.Redis.from_url(os.environ["PEER_REDIS_URL"], protocol=2)
_channels = ChannelsPlugin(
    backend=RedisChannelsStreamBackend(
        history=200,
        redis=_client,
        # The default of 1 ms is polling; a long block would delay a new channel's first subscriber.
        stream_sleep_no_subscriptions=50,
    ),
    arbitrary_channels_allowed=True,
)


@get("/ready")
async def ready() -> str:
    """Answer the harness's readiness check."""
    return "ready"


@post("/pub/{channel:str}")
async def publish(channel: str, request: Request[Any, Any, Any]) -> None:
    """Publish the request's body unchanged."""
    await _channels.wait_published((await request.body()).decode(), channel)


@get("/sub/{channel:str}")
async def subscribe(channel: str) -> ServerSentEvent:
    """Stream a channel's messages from now."""

    async def events() -> AsyncGenerator[bytes, None]:
        async with _channels.start_subscription([channel]) as subscriber:
            async for event in subscriber.iter_events():
                yield event

    return ServerSentEvent(events())


app = Litestar([ready, publish, subscribe], plugins=[_channels], openapi_config=None)
