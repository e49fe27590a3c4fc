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

import msgspec
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import (
    AskError,
    ClusterError,
    MaxConnectionsError,
    MovedError,
    NoScriptError,
    RedisError,
    ResponseError,
    TryAgainError,
)

from streams.model.errors import WindowBusy, WindowRefused, WindowUnavailable
from streams.model.shards import SHARDS
from streams.window import keys
from streams.window.lua import Script

_log = logging.getLogger(__name__)

Argument = bytes | str | int
_CONNECT_TIMEOUT_S = 1.0
# Calls under way at one server; others wait for their turn. The driver's own pools raise an error
# instead (of a cluster, of Sentinel), so they are a little larger than is ever used.
_CALLS_AT_ONCE = 16
# How many connections are kept for scripts.
_MOST_KEPT = 2
_SPARE = 8
_MAX_CONNECTIONS = _CALLS_AT_ONCE + _MOST_KEPT + _SPARE
_MAP_TIMEOUT_S = 0.5

# Replies as the server sends them: the shapes that redis-py makes of them differ by protocol.
_RAW_REPLIES = ("XREAD", "XRANGE", "XREVRANGE", "XADD")


class Server(msgspec.Struct, frozen=True):
    """A server that takes writes, and the shards that it holds."""

    name: str
    shards: frozenset[int]


_ALL_SHARDS = frozenset(range(SHARDS))
_ONLY_SERVER = "redis"


class RedisClient:
    """Commands, pipelines of scripts, and dedicated connections for blocking reads.

    No call is retried here and none lasts longer than one and a half `timeout_s`, connecting and
    waiting for its turn included. All failures are `WindowUnavailable`.
    """

    def __init__(self, url: str, *, timeout_s: float = 1.0) -> None:
        self._url = url
        self._timeout_s = timeout_s
        self._scheme = urlsplit(url).scheme
        self._sentinel: Any = None
        self._client = self._make(_MAX_CONNECTIONS)
        self._kept: list[Any] = []
        self._turns: dict[str, asyncio.Semaphore] = {}
        self._known_servers = [Server(_ONLY_SERVER, _ALL_SHARDS)]

    @property
    def is_cluster(self) -> bool:
        """Whether keys live on several servers."""
        return self._scheme == "redis+cluster"

    async def servers(self, *, refresh: bool = False) -> list[Server]:
        """Return the servers that take writes, as last known; `refresh` asks the cluster."""
        if self.is_cluster:
            with contextlib.suppress(WindowUnavailable), _TRANSLATED:
                async with asyncio.timeout(_MAP_TIMEOUT_S):
                    await self._client.initialize()
                    if refresh:
                        await self._client.nodes_manager.initialize()
                shards: dict[str, set[int]] = {}
                for shard in _ALL_SHARDS:
                    shards.setdefault(self._name_of(keys.signals(shard)), set()).add(shard)
                self._known_servers = [
                    Server(name, frozenset(held)) for name, held in shards.items()
                ]
            _heed_cancellation()
        return self._known_servers

    async def close(self) -> None:
        """Close the connections."""
        with contextlib.suppress(WindowUnavailable), _TRANSLATED:
            async with asyncio.timeout(2):
                if self.is_cluster:
                    await self._client.aclose()
                else:
                    await self._client.aclose(close_connection_pool=True)
                    if self._sentinel is not None:
                        for sentinel in self._sentinel.sentinels:
                            await sentinel.aclose(close_connection_pool=True)

    async def call(self, *command: Argument) -> Any:
        """Send one command whose first key is its second word, and return the raw reply."""
        deadline = asyncio.get_running_loop().time() + 1.5 * self._timeout_s
        server = _ONLY_SERVER
        if self.is_cluster:
            await self._know_servers(deadline)
            server = self._name_of(str(command[1])) if len(command) > 1 else ""
        turns = await self._turn(server, deadline)
        try:
            with _TRANSLATED:
                async with asyncio.timeout_at(deadline):
                    reply = await self._client.execute_command(*command)
        finally:
            turns.release()
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
        """Run a script for many keys in one round trip to each server.

        Returns the reply of each, or a `WindowUnavailable` in its place: a server that is down
        costs the others nothing.
        """
        replies = await self._send(script, calls)
        missing = [i for i, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if missing:
            again = await self._send(script, [calls[i] for i in missing], with_text=True)
            for i, reply in zip(missing, again, strict=True):
                replies[i] = reply
        return [_unavailable(reply) if isinstance(reply, Exception) else reply for reply in replies]

    async def _send(
        self,
        script: Script,
        calls: Sequence[tuple[str, Sequence[Argument]]],
        *,
        with_text: bool = False,
    ) -> list[Any]:
        # A pipeline of thousands of scripts takes its time: the bound grows with it.
        deadline = asyncio.get_running_loop().time() + 1.5 * self._timeout_s + len(calls) / 1000
        if not self.is_cluster:
            return await self._send_to(_ONLY_SERVER, script, calls, deadline, with_text)
        await self._know_servers(deadline)
        by_server: dict[str, list[int]] = {}
        for i, (key, _) in enumerate(calls):
            by_server.setdefault(self._name_of(key), []).append(i)
        sending = [
            self._send_to(server, script, [calls[i] for i in places], deadline, with_text)
            for server, places in by_server.items()
        ]
        answers = [await sending[0]] if len(sending) == 1 else await asyncio.gather(*sending)
        replies: list[Any] = [None] * len(calls)
        for places, answer in zip(by_server.values(), answers, strict=True):
            for i, reply in zip(places, answer, strict=True):
                replies[i] = reply
        return replies

    async def _send_to(
        self,
        server: str,
        script: Script,
        calls: Sequence[tuple[str, Sequence[Argument]]],
        deadline: float,
        with_text: bool,
    ) -> list[Any]:
        commands: list[tuple[Argument, ...]] = [
            ("EVALSHA", script.sha, 1, key, *arguments) for key, arguments in calls
        ]
        if with_text:
            # The first one brings the script to the server.
            commands[0] = ("EVAL", script.text, *commands[0][2:])
        try:
            turns = await self._turn(server, deadline)
            try:
                with _TRANSLATED:
                    async with asyncio.timeout_at(deadline):
                        replies = await self._exchange_with(commands)
            finally:
                turns.release()
        except WindowUnavailable as error:
            return [error] * len(calls)
        _heed_cancellation()
        return replies

    async def _exchange_with(self, commands: Sequence[Sequence[Argument]]) -> list[Any]:
        if not self.is_cluster:
            return await self._exchange(commands)
        if len(commands) == 1:
            try:
                return [await self._client.execute_command(*commands[0])]
            except ResponseError as error:
                return [error]
        pipeline = self._client.pipeline()
        for command in commands:
            pipeline.execute_command(*command)
        return cast("list[Any]", await pipeline.execute(raise_on_error=False))

    async def _know_servers(self, deadline: float) -> None:
        with _TRANSLATED:
            async with asyncio.timeout_at(deadline):
                await self._client.initialize()

    def _name_of(self, key: str) -> str:
        """Return the name of the cluster's server that holds a key."""
        with _TRANSLATED:
            return str(self._client.get_node_from_key(key).name)

    async def _turn(self, server: str, deadline: float) -> asyncio.Semaphore:
        """Wait for a turn at the server; the caller releases it. Raises `WindowBusy`."""
        turns = self._turns.get(server)
        if turns is None:
            turns = self._turns[server] = asyncio.Semaphore(_CALLS_AT_ONCE)
        try:
            async with asyncio.timeout_at(deadline):
                await turns.acquire()
        except TimeoutError:
            raise WindowBusy("Redis: no connection became free") from None
        return turns

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
        if self._sentinel is None:
            # One for all clients: nobody closes the connections to Sentinels with a client, and a
            # lane makes a client each time that it connects.
            self._sentinel = Sentinel(addresses, sentinel_kwargs=dict(common))  # type: ignore[no-untyped-call]
        return self._sentinel.master_for(
            service,
            redis_class=Redis,
            db=int(database or 0),
            username=unquote(user) or None,
            password=unquote(password) or None,
            max_connections=_MAX_CONNECTIONS,
            **common,
        )

    async def _follow(self, moved: MovedError) -> None:
        """Remember where a slot is now."""
        with contextlib.suppress(WindowUnavailable), _TRANSLATED:
            await self._client.nodes_manager.move_slot(moved)

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
        self._call_timeout_s = 1.5 * servers._timeout_s
        self._read_timeout_s = block_s + 4.0
        self._client: Any = None
        self._connection: Any = None

    async def call(self, *command: Argument) -> Any:
        """Send one command and wait for its raw reply."""
        is_read = command[0] == "XREAD"
        return await self._exchange(
            command, self._read_timeout_s if is_read else self._call_timeout_s
        )

    async def send(self, packed: bytes) -> Any:
        """Send one blocking read that is packed already, and wait for its raw reply."""
        return await self._exchange(packed, self._read_timeout_s)

    async def _exchange(self, command: bytes | tuple[Argument, ...], timeout_s: float) -> Any:
        try:
            with _TRANSLATED:
                async with asyncio.timeout(timeout_s):
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
        except WindowBusy as error:
            if isinstance(error.__cause__, MovedError):
                await self._servers._follow(error.__cause__)
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
    """Return what a driver's error means."""
    if isinstance(error, WindowUnavailable):
        return error
    failure: WindowUnavailable
    if isinstance(error, (AskError, TryAgainError)):
        failure = WindowBusy("Redis: the slot is moving, or has moved")
    elif isinstance(error, MaxConnectionsError):
        failure = WindowBusy("Redis: no connection is free")
    elif isinstance(error, ResponseError):
        failure = WindowRefused(f"Redis: {type(error).__name__}")
    else:
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
        if isinstance(error, (RedisError, OSError, TimeoutError)):
            raise _unavailable(error)
        if isinstance(error, RuntimeError) and _says_closed(error):
            raise WindowUnavailable("Redis: the connection is closed") from error


_TRANSLATED = _Translated()
