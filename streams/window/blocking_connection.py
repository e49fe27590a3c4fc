"""The blocking connection of a lane: one connection of its own, made anew after each failure.

Which streams are read over it is the matter of `streams/tail/lane.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from redis.exceptions import MovedError

from streams.model.errors import WindowBusy, WindowUnavailable
from streams.window.redis_errors import TRANSLATED
from streams.window.redis_factory import RedisFactory
from streams.window.redis_internals import (
    Argument,
    exchange,
    raise_lost_cancellation,
    take_connection,
)
from streams.window.redis_servers import RedisServers

_CLOSE_TIMEOUT_S = 2.0
# A blocking read that takes so much longer than its block has lost its server.
_READ_SLACK_S = 4.0


class BlockingConnection:
    """One connection for blocking reads. Not for several tasks at once.

    After a failure the next call connects anew, to the server that holds the key by then.
    """

    def __init__(
        self,
        factory: RedisFactory,
        servers: RedisServers,
        key: str,
        *,
        call_timeout_s: float,
        block_s: float,
    ) -> None:
        self._factory = factory
        self._servers = servers
        self._key = key
        self._call_timeout_s = call_timeout_s
        self._read_timeout_s = block_s + _READ_SLACK_S
        self._client: Any = None
        self._connection: Any = None

    async def call(self, *command: Argument) -> Any:
        """Send one command and wait for its raw reply. Raises `WindowUnavailable`."""
        is_read = command[0] == "XREAD"
        return await self._exchange(
            command, self._read_timeout_s if is_read else self._call_timeout_s
        )

    async def send(self, packed: bytes) -> Any:
        """Send one blocking read that is packed already, and wait for its raw reply.

        Raises `WindowUnavailable`.
        """
        return await self._exchange(packed, self._read_timeout_s)

    async def _exchange(self, command: bytes | tuple[Argument, ...], timeout_s: float) -> Any:
        try:
            with TRANSLATED:
                async with asyncio.timeout(timeout_s):
                    if self._connection is None:
                        address = await self._servers.address_of(self._key)
                        self._client = self._factory.single_client(address)
                        self._connection = await take_connection(self._client)
                    # Straight to the connection: the client around it costs more than the read.
                    reply = await exchange(self._connection, command)
            raise_lost_cancellation()
            return reply
        except WindowBusy as error:
            if isinstance(error.__cause__, MovedError):
                await self._servers.note_moved(error.__cause__)
            await self.close()
            raise
        except BaseException:
            # Also on cancellation: the reply may still be on its way.
            await self.close()
            raise

    async def close(self) -> None:
        """Close the connection."""
        client, self._client, self._connection = self._client, None, None
        if client is not None:
            with contextlib.suppress(WindowUnavailable), TRANSLATED:
                async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                    await client.aclose(close_connection_pool=True)
