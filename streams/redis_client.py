"""Clients for Redis wherever it is: one server, a cluster, or behind Sentinels.

The only file that imports redis. It knows connections, scripts and the driver's errors; which
keys and commands there are is the matter of `window.py`, `lanes.py` and `ephemeral.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from typing import Any, cast
from urllib.parse import unquote, urlsplit

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import ClusterError, MovedError, NoScriptError, RedisError, ResponseError

from streams.errors import WindowUnavailable
from streams.lua import Script

_log = logging.getLogger(__name__)

Argument = bytes | str | int
_CONNECT_TIMEOUT_S = 1.0
_MAX_CONNECTIONS = 16
# Of these, how many are kept for scripts.
_MOST_KEPT = 2

# Replies as the server sends them: the shapes that redis-py makes of them differ by protocol.
_RAW_REPLIES = ("XREAD", "XRANGE", "XREVRANGE", "XADD")


class RedisClient:
    """Commands, pipelines of scripts, and dedicated connections for blocking reads.

    No call is retried here and none lasts longer than one and a half `timeout_s`, connecting
    included. All failures are `WindowUnavailable`.
    """

    def __init__(self, url: str, *, timeout_s: float = 1.0) -> None:
        self._url = url
        self._timeout_s = timeout_s
        self._scheme = urlsplit(url).scheme
        self._client = self._make(_MAX_CONNECTIONS)
        self._kept: list[Any] = []

    @property
    def is_cluster(self) -> bool:
        """Whether keys live on several servers."""
        return self._scheme == "redis+cluster"

    async def close(self) -> None:
        """Close the connections."""
        with contextlib.suppress(WindowUnavailable), _TRANSLATED:
            async with asyncio.timeout(2):
                if self.is_cluster:
                    await self._client.aclose()
                else:
                    await self._client.aclose(close_connection_pool=True)

    async def call(self, *command: Argument) -> Any:
        """Send one command whose first key is its second word, and return the raw reply."""
        with _TRANSLATED:
            async with asyncio.timeout(1.5 * self._timeout_s):
                reply = await self._client.execute_command(*command)
        _heed_cancellation()
        return reply

    async def run(self, script: Script, key: str, *arguments: Argument) -> Any:
        """Run a script on one key; load it where the server does not have it."""
        (reply,) = await self.run_all(script, [(key, arguments)])
        if isinstance(reply, WindowUnavailable):
            raise reply
        return reply

    async def run_all(
        self, script: Script, calls: Sequence[tuple[str, Sequence[Argument]]]
    ) -> list[Any]:
        """Run a script for many keys in one round trip.

        Returns the reply of each, or a `WindowUnavailable` in its place.
        """
        replies = await self._send(script, calls)
        _heed_cancellation()
        missing = [i for i, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if missing:
            with _TRANSLATED:
                async with asyncio.timeout(1.5 * self._timeout_s):
                    await self._client.script_load(script.text)
            again = await self._send(script, [calls[i] for i in missing])
            _heed_cancellation()
            for i, reply in zip(missing, again, strict=True):
                replies[i] = reply
        return [_unavailable(reply) if isinstance(reply, Exception) else reply for reply in replies]

    async def _send(
        self, script: Script, calls: Sequence[tuple[str, Sequence[Argument]]]
    ) -> list[Any]:
        commands = [("EVALSHA", script.sha, 1, key, *arguments) for key, arguments in calls]
        with _TRANSLATED:
            # A pipeline of thousands of scripts takes its time: the bound grows with it.
            async with asyncio.timeout(1.5 * self._timeout_s + len(calls) / 1000):
                if not self.is_cluster:
                    return await self._exchange(commands)
                if len(commands) == 1:
                    try:
                        return [await self._client.execute_command(*commands[0])]
                    except NoScriptError as error:
                        return [error]
                pipeline = self._client.pipeline()
                for command in commands:
                    pipeline.execute_command(*command)
                return cast("list[Any]", await pipeline.execute(raise_on_error=False))

    async def _exchange(self, commands: Sequence[Sequence[Argument]]) -> list[Any]:
        """Send commands in one piece and read their replies; an error stands in its place.

        Over a connection that is kept for it: to ask the pool costs as much as the exchange.
        """
        pool = self._client.connection_pool
        is_kept = bool(self._kept)
        connection = self._kept.pop() if is_kept else await pool.get_connection()
        try:
            if is_kept:
                # It may have ended meanwhile.
                await pool.ensure_connection(connection)
            packed = [piece for command in commands for piece in connection.pack_command(*command)]
            await connection.send_packed_command(packed, check_health=False)
            replies: list[Any] = []
            for _ in commands:
                try:
                    replies.append(await connection.read_response())
                except ResponseError as error:
                    replies.append(error)
        except BaseException:
            # Also on cancellation: the replies may still be on their way.
            await connection.disconnect(nowait=True)
            await pool.release(connection)
            raise
        if len(self._kept) < _MOST_KEPT:
            self._kept.append(connection)
        else:
            await pool.release(connection)
        return replies

    def dedicated(self, key: str, *, block_s: float) -> BlockingConnection:
        """Return a connection of its own to the server that holds `key`, for blocking reads."""
        return BlockingConnection(self, key, block_s)

    def _make(self, connections: int) -> Any:
        common: dict[str, Any] = {
            # Ours are around each call. With one of its own the driver makes a task for every
            # send, aborts every quiet read, and in Python 3.11 its `wait_for` may swallow a
            # cancellation, so that a read goes on to the end of its block.
            "socket_timeout": None,
            "socket_connect_timeout": _CONNECT_TIMEOUT_S,
            # One place decides what happens after a failure, and it is not the driver.
            "retry": Retry(NoBackoff(), 0),
            "protocol": 2,
        }
        if self._scheme != "unix":
            common["socket_keepalive"] = True
        client: Any
        if self.is_cluster:
            client = RedisCluster.from_url(
                "redis" + self._url.removeprefix("redis+cluster"),
                max_connections=connections,
                **common,
            )
        elif self._scheme == "redis+sentinel":
            client = self._behind_sentinels(common)
        else:
            pool = BlockingConnectionPool.from_url(
                self._url, max_connections=connections, timeout=self._timeout_s, **common
            )
            client = Redis(connection_pool=pool)
        for name in _RAW_REPLIES:
            client.set_response_callback(name, _as_it_is)
        return client

    def _behind_sentinels(self, common: dict[str, Any]) -> Any:
        # redis+sentinel://[user:password@]host:port[,host:port…]/service[/db]
        parts = urlsplit(self._url)
        credentials, _, hosts = parts.netloc.rpartition("@")
        user, _, password = credentials.partition(":")
        service, _, database = parts.path.strip("/").partition("/")
        addresses = []
        for host in hosts.split(","):
            name, _, port = host.partition(":")
            addresses.append((name, int(port or 26379)))
        sentinel: Any = Sentinel(addresses, sentinel_kwargs=dict(common))  # type: ignore[no-untyped-call]
        return sentinel.master_for(
            service,
            redis_class=Redis,
            db=int(database or 0),
            username=unquote(user) or None,
            password=unquote(password) or None,
            **common,
        )

    async def _node_of(self, key: str) -> tuple[str, int]:
        await self._client.initialize()
        node = self._client.get_node_from_key(key)
        if node is None:
            raise ClusterError("no node holds this key")
        return str(node.host), int(node.port)


class BlockingConnection:
    """One connection for blocking reads. Not for several tasks at once.

    After a failure the next call connects anew, to wherever the key then lives.
    """

    def __init__(self, servers: RedisClient, key: str, block_s: float) -> None:
        self._servers = servers
        self._key = key
        self._timeout_s = block_s + 4.0
        self._client: Any = None
        self._connection: Any = None

    async def call(self, *command: Argument) -> Any:
        """Send one command and wait for its raw reply."""
        return await self._exchange(command)

    async def send(self, packed: bytes) -> Any:
        """Send one command that is packed already, and wait for its raw reply."""
        return await self._exchange(packed)

    async def _exchange(self, command: bytes | tuple[Argument, ...]) -> Any:
        try:
            with _TRANSLATED:
                async with asyncio.timeout(self._timeout_s):
                    if self._connection is None:
                        self._client = await self._connect()
                        self._connection = await self._client.connection_pool.get_connection()
                    connection = self._connection
                    # Straight to the connection: the client around it costs more than the read.
                    if not isinstance(command, bytes):
                        command = connection.pack_command(*command)
                    await connection.send_packed_command(command, check_health=False)
                    reply = await connection.read_response()
            _heed_cancellation()
            return reply
        except BaseException:
            # Also on cancellation: the reply may still be on its way.
            await self.close()
            raise

    async def close(self) -> None:
        """Close the connection."""
        client, self._client, self._connection = self._client, None, None
        if client is not None:
            with contextlib.suppress(WindowUnavailable), _TRANSLATED:
                async with asyncio.timeout(2):
                    await client.aclose(close_connection_pool=True)

    async def _connect(self) -> Any:
        servers = self._servers
        if not servers.is_cluster:
            return servers._make(1)
        host, port = await servers._node_of(self._key)
        parts = urlsplit(servers._url)
        client: Any = Redis(
            host=host,
            port=port,
            username=unquote(parts.username) if parts.username else None,
            password=unquote(parts.password) if parts.password else None,
            socket_timeout=None,
            socket_connect_timeout=_CONNECT_TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
        )
        for name in _RAW_REPLIES:
            client.set_response_callback(name, _as_it_is)
        return client


def _heed_cancellation() -> None:
    """Raise the cancellation that the driver swallowed, if it did.

    redis-py sends by `asyncio.wait_for`, which in Python 3.11 may lose a cancellation that comes
    just as its inner step is done (https://github.com/python/cpython/issues/86296): a reader that
    was cancelled would go on for ever. Called outside of `asyncio.timeout`, whose own cancellation
    is then settled.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def _says_closed(error: RuntimeError) -> bool:
    """Tell whether uvloop says that a transport was closed meanwhile: a lost connection, no bug.

    Its `UVHandle._ensure_alive` knows no class of its own for that.
    """
    return "the handler is closed" in str(error)


def _as_it_is(reply: Any, **_: Any) -> Any:
    return reply


def _unavailable(error: Exception) -> WindowUnavailable:
    failure = WindowUnavailable(f"Redis: {type(error).__name__}")
    failure.__cause__ = error
    return failure


class _Translated:
    """Makes `WindowUnavailable` of what the driver raises.

    A class, because a generator as a context manager costs as much as packing a command.
    """

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: object
    ) -> None:
        if error is None:
            return
        if isinstance(error, MovedError):
            raise WindowUnavailable("Redis: the slot has moved") from error
        if isinstance(error, (RedisError, OSError, TimeoutError)):
            raise WindowUnavailable(f"Redis: {type(error).__name__}") from error
        if isinstance(error, RuntimeError) and _says_closed(error):
            raise WindowUnavailable("Redis: the connection is closed") from error


_TRANSLATED = _Translated()
