"""A peer: every connection has its own subscription at Redis, with sse-starlette.

Started by python_app.py under uvicorn. Its two packages are bench-only requirements and are
loaded by name, so that type checks do not need them. Not part of seqstream.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import AsyncIterator
from typing import Any

import redis.asyncio as redis

_starlette = importlib.import_module("starlette.applications")
_routing = importlib.import_module("starlette.routing")
_responses = importlib.import_module("starlette.responses")
_sse = importlib.import_module("sse_starlette")

# Every subscriber holds a connection to Redis: there are as many connections as clients.
_client = redis.Redis.from_url(
    os.environ["PEER_REDIS_URL"], protocol=2, max_connections=20_000, socket_timeout=None
)


async def _ready(request: Any) -> Any:
    return _responses.PlainTextResponse("ready")


async def _publish(request: Any) -> Any:
    await _client.publish(request.path_params["channel"], await request.body())
    return _responses.Response(status_code=201)


async def _subscribe(request: Any) -> Any:
    channel = request.path_params["channel"]

    async def events() -> AsyncIterator[dict[str, str]]:
        async with _client.pubsub() as pubsub:
            await pubsub.subscribe(channel)
            async for message in pubsub.listen():
                if message["type"] == "message":
                    yield {"event": "message.new", "data": message["data"].decode()}

    return _sse.EventSourceResponse(events())


app = _starlette.Starlette(
    routes=[
        _routing.Route("/ready", _ready),
        _routing.Route("/pub/{channel}", _publish, methods=["POST"]),
        _routing.Route("/sub/{channel}", _subscribe),
    ]
)
