"""What is used of redis-py beyond its documented interface. No other module may touch it.

The driver's own client costs more than the exchange with the server, so publishes and lanes use its
connections directly. Every internal is listed in `_REQUIRED` and checked at import: a version of
redis-py that lacks one ends the start with its name. Behaviour that the documentation of redis-py
or uvloop does not promise is here too.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterable, Sequence
from typing import Any

import redis
from redis.asyncio import BlockingConnectionPool, ConnectionPool, Redis
from redis.asyncio.cluster import NodesManager, RedisCluster
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.sentinel import Sentinel
from redis.exceptions import MovedError, ResponseError

Argument = bytes | str | int
"""One word of a command."""

# Class, attribute, and the parameters by which it is called.
Required = tuple[type, str, tuple[str, ...]]
_REQUIRED: tuple[Required, ...] = (
    (Redis, "aclose", ("close_connection_pool",)),
    (ConnectionPool, "get_connection", ()),
    (ConnectionPool, "ensure_connection", ("connection",)),
    (ConnectionPool, "release", ("connection",)),
    (BlockingConnectionPool, "get_connection", ()),
    (BlockingConnectionPool, "release", ("connection",)),
    (AbstractConnection, "pack_command", ()),
    (AbstractConnection, "send_packed_command", ("command", "check_health")),
    (AbstractConnection, "read_response", ()),
    (AbstractConnection, "disconnect", ("nowait",)),
    (RedisCluster, "get_node_from_key", ("key",)),
    (RedisCluster, "nodes_manager", ()),
    (NodesManager, "initialize", ()),
    (NodesManager, "move_slot", ()),
)


def require(version: str, required: Iterable[Required]) -> None:
    """Check that redis-py has these attributes and parameters.

    Raises:
        ImportError: it lacks some; the message names the version and all that is missing.
    """
    missing = []
    for owner, name, parameters in required:
        attribute = getattr(owner, name, None)
        if attribute is None:
            missing.append(f"{owner.__name__}.{name}")
        elif parameters:
            known = inspect.signature(attribute).parameters
            missing += [f"{owner.__name__}.{name}({p}=)" for p in parameters if p not in known]
    if missing:
        raise ImportError(f"redis {version} lacks {', '.join(missing)}, which seqstream needs")


require(redis.__version__, _REQUIRED)


async def take_connection(client: Any) -> Any:
    """Return a connection of the client's pool; the caller alone uses it."""
    return await client.connection_pool.get_connection()


async def exchange(connection: Any, command: bytes | tuple[Argument, ...]) -> Any:
    """Send one command, packed or not, and return the raw reply."""
    if not isinstance(command, bytes):
        command = connection.pack_command(*command)
    await connection.send_packed_command(command, check_health=False)
    return await connection.read_response()


class KeptConnections:
    """Sends commands over connections that are kept: asking the pool costs as much as the exchange.

    Not for a cluster, whose client has no single pool.
    """

    def __init__(self, client: Any, most: int) -> None:
        self._pool = client.connection_pool
        self._most = most
        self.kept: list[Any] = []

    async def exchange(self, commands: Sequence[Sequence[Argument]]) -> list[Any]:
        """Send commands in one piece and return their replies, `ResponseError`s among them."""
        pool = self._pool
        is_kept = bool(self.kept)
        connection = self.kept.pop() if is_kept else await pool.get_connection()
        try:
            if is_kept:
                # The server may have closed it meanwhile.
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
            # Also on cancellation: replies that are still on their way must not reach the next
            # user of the connection.
            await connection.disconnect(nowait=True)
            await pool.release(connection)
            raise
        if len(self.kept) < self._most:
            self.kept.append(connection)
        else:
            await pool.release(connection)
        return replies


async def reload_slots(cluster: Any) -> None:
    """Ask the cluster which node holds which slot."""
    await cluster.nodes_manager.initialize()


async def note_moved_slot(cluster: Any, moved: MovedError) -> None:
    """Record where a slot is now, as the error says."""
    await cluster.nodes_manager.move_slot(moved)


async def close_sentinels(sentinel: Sentinel) -> None:
    """Close the connections to the Sentinels, which no client closes."""
    for client in sentinel.sentinels:
        await client.aclose(close_connection_pool=True)


def raise_lost_cancellation() -> None:
    """Raise the cancellation of the current task that the driver swallowed, if it did.

    redis-py sends by `asyncio.wait_for`, which in Python 3.11 may lose a cancellation that arrives
    just as its inner step is done (https://github.com/python/cpython/issues/86296): a cancelled
    reader would go on reading. Call it outside of `asyncio.timeout`, whose own cancellation is
    settled by then.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def is_closed_transport(error: RuntimeError) -> bool:
    """Tell whether uvloop reports a transport that was closed meanwhile: a lost connection, no bug.

    Its `UVHandle._ensure_alive` has no class of its own for that.
    """
    return "the handler is closed" in str(error)
