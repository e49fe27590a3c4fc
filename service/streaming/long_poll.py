"""Long polling: a request for the history that waits until its project has a newer message.

For clients behind a proxy that holds a stream back. What is answered is the route's
(`routes/messages.py`); who may ask is checked there before and after the wait.
"""

from __future__ import annotations

import asyncio

from service.http.server_connection import ServerConnection
from service.streaming.open_streams import OpenStreams
from streams.tail.registry import TailRegistry


async def wait_for_message(
    streams: OpenStreams,
    tails: TailRegistry,
    connection: ServerConnection | None,
    *,
    project_id: str,
    user_id: str,
    after: int,
    wait_s: float,
) -> None:
    """Return when the project has a message after `after`, or `wait_s` seconds later.

    Returns early when the client is gone and when the process drains. A waiting request counts as
    an open stream of its user, and holds the project's tail as a stream does.

    Raises:
        ApiError: 429, too many open streams.
        ProjectNotFound, LogUnavailable: see `TailRegistry.reading`.
    """
    woken = asyncio.Event()
    with streams.waiting(project_id, user_id, woken):
        async with tails.reading(project_id) as tail:
            tail.listen(woken.set, _ignore)
            if connection is not None:
                connection.on_change = woken.set
            try:
                async with asyncio.timeout(wait_s):
                    while tail.last_seq <= after and not streams.draining:
                        if connection is not None and connection.lost:
                            return
                        woken.clear()
                        await woken.wait()
            except TimeoutError:
                pass
            finally:
                tail.unlisten(woken.set, _ignore)
                if connection is not None:
                    connection.on_change = None


def _ignore(_: bytes) -> None:
    """Ephemeral events are not part of the history."""
