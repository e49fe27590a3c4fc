"""Commands and scripts on Redis, wherever their keys live.

It sends and bounds calls. How clients are made is in `redis_factory.py`, which server holds a key
in `redis_servers.py`; which keys and commands there are is the callers' matter.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any, cast

from redis.exceptions import NoScriptError, ResponseError

from streams.model.errors import WindowBusy, WindowUnavailable
from streams.window.blocking_connection import BlockingConnection
from streams.window.lua import Script
from streams.window.redis_errors import TRANSLATED, as_unavailable
from streams.window.redis_factory import CALLS_AT_ONCE, MOST_KEPT, RedisFactory
from streams.window.redis_internals import Argument as Argument
from streams.window.redis_internals import KeptConnections, raise_lost_cancellation
from streams.window.redis_servers import ONLY_SERVER, RedisServers, Server

_CLOSE_TIMEOUT_S = 2.0
# A script's key and its arguments.
_Call = tuple[str, Sequence[Argument]]


class RedisClient:
    """Commands, pipelines of scripts, and dedicated connections for blocking reads.

    No call is retried here and none lasts longer than one and a half `timeout_s`, connecting and
    waiting for its turn included. All failures are `WindowUnavailable`.
    """

    def __init__(self, url: str, *, timeout_s: float = 1.0) -> None:
        self._call_timeout_s = 1.5 * timeout_s
        self._factory = RedisFactory(url, timeout_s)
        self._client = self._factory.shared_client()
        self._servers = RedisServers(self._client, is_cluster=self.is_cluster)
        # On a cluster the driver's own pipelines are used: its client has no single pool.
        self._connections = None if self.is_cluster else KeptConnections(self._client, MOST_KEPT)
        self._turns: dict[str, asyncio.Semaphore] = {}

    @property
    def is_cluster(self) -> bool:
        """Whether keys live on several servers."""
        return self._factory.is_cluster

    async def servers(self, *, refresh: bool = False) -> list[Server]:
        """Return the servers that take writes, as last known; `refresh` asks the cluster."""
        return await self._servers.servers(refresh=refresh)

    def dedicated(self, key: str, *, block_s: float) -> BlockingConnection:
        """Return a connection of its own to the server that holds `key`, for blocking reads."""
        return BlockingConnection(
            self._factory,
            self._servers,
            key,
            call_timeout_s=self._call_timeout_s,
            block_s=block_s,
        )

    async def close(self) -> None:
        """Close the connections, except dedicated ones, which their owners close."""
        with contextlib.suppress(WindowUnavailable), TRANSLATED:
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                if self.is_cluster:
                    await self._client.aclose()
                else:
                    await self._client.aclose(close_connection_pool=True)
                    await self._factory.close()

    async def call(self, *command: Argument) -> Any:
        """Send one command whose first key is its second word, and return the raw reply."""
        deadline = asyncio.get_running_loop().time() + self._call_timeout_s
        server = ONLY_SERVER
        if self._connections is None:
            await self._servers.load(deadline)
            server = self._servers.name_of(str(command[1])) if len(command) > 1 else ""
        turns = await self._turn(server, deadline)
        try:
            with TRANSLATED:
                async with asyncio.timeout_at(deadline):
                    reply = await self._client.execute_command(*command)
        finally:
            turns.release()
        raise_lost_cancellation()
        return reply

    async def run(self, script: Script, key: str, *arguments: Argument) -> Any:
        """Run a script on one key; load it where the server does not have it."""
        (reply,) = await self.run_all(script, [(key, arguments)])
        if isinstance(reply, WindowUnavailable):
            raise reply
        return reply

    async def run_all(self, script: Script, calls: Sequence[_Call]) -> list[Any]:
        """Run a script for many keys in one round trip to each server.

        Returns the reply of each, or a `WindowUnavailable` in its place: a server that is down
        does not fail the calls to the others.
        """
        replies = await self._send(script, calls)
        missing = [i for i, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if missing:
            again = await self._send(script, [calls[i] for i in missing], with_text=True)
            for i, reply in zip(missing, again, strict=True):
                replies[i] = reply
        return [
            as_unavailable(reply) if isinstance(reply, Exception) else reply for reply in replies
        ]

    async def _send(
        self, script: Script, calls: Sequence[_Call], *, with_text: bool = False
    ) -> list[Any]:
        # A pipeline of thousands of scripts takes its time: the bound grows with it.
        deadline = asyncio.get_running_loop().time() + self._call_timeout_s + len(calls) / 1000
        if self._connections is not None:
            return await self._send_to(ONLY_SERVER, _commands(script, calls, with_text), deadline)
        await self._servers.load(deadline)
        by_server: dict[str, list[int]] = {}
        for i, (key, _) in enumerate(calls):
            by_server.setdefault(self._servers.name_of(key), []).append(i)
        sending = [
            self._send_to(
                server, _commands(script, [calls[i] for i in places], with_text), deadline
            )
            for server, places in by_server.items()
        ]
        results = [await sending[0]] if len(sending) == 1 else await asyncio.gather(*sending)
        replies: list[Any] = [None] * len(calls)
        for places, result in zip(by_server.values(), results, strict=True):
            for i, reply in zip(places, result, strict=True):
                replies[i] = reply
        return replies

    async def _send_to(
        self, server: str, commands: Sequence[Sequence[Argument]], deadline: float
    ) -> list[Any]:
        """Send commands to one server; where that fails the error is the reply of each."""
        try:
            turns = await self._turn(server, deadline)
            try:
                with TRANSLATED:
                    async with asyncio.timeout_at(deadline):
                        if self._connections is not None:
                            replies = await self._connections.exchange(commands)
                        else:
                            replies = await self._exchange_on_cluster(commands)
            finally:
                turns.release()
        except WindowUnavailable as error:
            return [error] * len(commands)
        raise_lost_cancellation()
        return replies

    async def _exchange_on_cluster(self, commands: Sequence[Sequence[Argument]]) -> list[Any]:
        if len(commands) == 1:
            try:
                return [await self._client.execute_command(*commands[0])]
            except ResponseError as error:
                return [error]
        pipeline = self._client.pipeline()
        for command in commands:
            pipeline.execute_command(*command)
        return cast("list[Any]", await pipeline.execute(raise_on_error=False))

    async def _turn(self, server: str, deadline: float) -> asyncio.Semaphore:
        """Wait for a turn at the server; the caller releases it. Raises `WindowBusy`."""
        turns = self._turns.get(server)
        if turns is None:
            turns = self._turns[server] = asyncio.Semaphore(CALLS_AT_ONCE)
        try:
            async with asyncio.timeout_at(deadline):
                await turns.acquire()
        except TimeoutError:
            raise WindowBusy("Redis: no connection became free") from None
        return turns


def _commands(
    script: Script, calls: Sequence[_Call], with_text: bool
) -> list[tuple[Argument, ...]]:
    commands: list[tuple[Argument, ...]] = [
        ("EVALSHA", script.sha, 1, key, *arguments) for key, arguments in calls
    ]
    if with_text:
        # The first command brings the script to the server.
        commands[0] = ("EVAL", script.text, *commands[0][2:])
    return commands
