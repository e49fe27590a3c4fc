"""Which server holds which key and which shards: one server, or the nodes of a cluster."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import msgspec
from redis.exceptions import ClusterError, MovedError

from streams.model.errors import WindowUnavailable
from streams.model.shards import SHARDS
from streams.window import keys
from streams.window.redis_errors import TRANSLATED
from streams.window.redis_internals import note_moved_slot, raise_lost_cancellation, reload_slots

ONLY_SERVER = "redis"
"""The name of the server where there is no cluster."""
_MAP_TIMEOUT_S = 0.5
_ALL_SHARDS = frozenset(range(SHARDS))


class Server(msgspec.Struct, frozen=True):
    """A server that takes writes, and the shards that it holds."""

    name: str
    shards: frozenset[int]


class RedisServers:
    """The servers as the shared client knows them."""

    def __init__(self, client: Any, *, is_cluster: bool) -> None:
        self._client = client
        self._is_cluster = is_cluster
        self._last_known = [Server(ONLY_SERVER, _ALL_SHARDS)]

    async def servers(self, *, refresh: bool) -> list[Server]:
        """Return the servers that take writes, as last known; `refresh` asks the cluster."""
        if self._is_cluster:
            with contextlib.suppress(WindowUnavailable), TRANSLATED:
                async with asyncio.timeout(_MAP_TIMEOUT_S):
                    await self._client.initialize()
                    if refresh:
                        await reload_slots(self._client)
                shards: dict[str, set[int]] = {}
                for shard in _ALL_SHARDS:
                    shards.setdefault(self.name_of(keys.signals(shard)), set()).add(shard)
                self._last_known = [Server(name, frozenset(held)) for name, held in shards.items()]
            raise_lost_cancellation()
        return self._last_known

    # Of a cluster only.

    async def load(self, deadline: float) -> None:
        """Ask the cluster for its nodes if that was never done. Raises `WindowUnavailable`."""
        with TRANSLATED:
            async with asyncio.timeout_at(deadline):
                await self._client.initialize()

    def name_of(self, key: str) -> str:
        """Return the name of the node that holds a key. Raises `WindowUnavailable`."""
        with TRANSLATED:
            return str(self._client.get_node_from_key(key).name)

    async def address_of(self, key: str) -> tuple[str, int] | None:
        """Return host and port of the node that holds a key; None without a cluster.

        Raises the driver's errors.
        """
        if not self._is_cluster:
            return None
        await self._client.initialize()
        node = self._client.get_node_from_key(key)
        if node is None:
            raise ClusterError("no node holds this key")
        return str(node.host), int(node.port)

    async def note_moved(self, moved: MovedError) -> None:
        """Record where a slot is now."""
        with contextlib.suppress(WindowUnavailable), TRANSLATED:
            await note_moved_slot(self._client, moved)
