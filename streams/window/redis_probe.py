"""The probe: a small write to every Redis server at a fixed interval.

A full or read-only server answers a PING, and on a cluster any node does; so it writes. What the
results mean is decided in `streams/runtime/health.py`.
"""

from __future__ import annotations

import asyncio
import time

from streams.model.errors import WindowBusy, WindowRefused, WindowUnavailable
from streams.runtime.health import DOES_NOT_ANSWER, REFUSES_WRITES, Health, ServerReport
from streams.window import keys
from streams.window.blocking_connection import BlockingConnection
from streams.window.redis_client import RedisClient
from streams.window.redis_servers import Server

# Long, because a busy machine is no outage; the heads poll delivers messages meanwhile.
_TIMEOUT_S = 1.0
_KEPT_MS = 10_000
# Least time between probes, however many calls fail; also the interval while Redis is away.
_SOONEST_S = 0.1
_REFRESH_EVERY_S = 1.0


class RedisProbe:
    """Writes to each server over a dedicated connection: a full pool is no outage."""

    def __init__(
        self, client: RedisClient, process_id: str, health: Health, interval_s: float
    ) -> None:
        self._client = client
        self._process_id = process_id
        self._health = health
        self._interval_s = interval_s
        self._connections: dict[str, tuple[str, BlockingConnection]] = {}
        self._refreshed_at = float("-inf")

    async def run(self) -> None:
        """Probe until cancelled."""
        try:
            while True:
                await self.once()
                await asyncio.sleep(min(_SOONEST_S, self._interval_s))
                if self._health.delivers:
                    try:
                        async with asyncio.timeout(self._interval_s):
                            await self._health.suspected()
                    except TimeoutError:
                        pass
        finally:
            for _, connection in self._connections.values():
                await connection.close()

    async def once(self) -> None:
        """Probe every server once."""
        refresh = not self._health.writes_everywhere and self._may_refresh()
        servers = await self._client.servers(refresh=refresh)
        for name in self._connections.keys() - {server.name for server in servers}:
            _, connection = self._connections.pop(name)
            await connection.close()
        self._health.saw_servers(await asyncio.gather(*map(self._report, servers)))

    def _may_refresh(self) -> bool:
        """Tell whether to ask the cluster for its slots, at most once a second.

        Other calls learn of a failover from the node's errors, but a node that is down gets none.
        """
        now = time.monotonic()
        if now - self._refreshed_at < _REFRESH_EVERY_S:
            return False
        self._refreshed_at = now
        return True

    async def _report(self, server: Server) -> ServerReport:
        problem, answers = None, True
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                await self._write(server)
        except WindowBusy:
            pass
        except WindowRefused:
            problem = REFUSES_WRITES
        except (WindowUnavailable, TimeoutError):
            problem, answers = DOES_NOT_ANSWER, False
        return ServerReport(server.name, server.shards, problem, answers)

    async def _write(self, server: Server) -> None:
        key = keys.probe(min(server.shards), self._process_id)
        known = self._connections.get(server.name)
        if known is None or known[0] != key:
            # The first probe, or the server lost that shard.
            if known is not None:
                await known[1].close()
            known = self._connections[server.name] = (
                key, self._client.dedicated(key, block_s=0.0),
            )  # fmt: skip
        _, connection = known
        try:
            await connection.call("SET", key, 1, "PX", _KEPT_MS)
        except WindowRefused:
            raise
        except WindowUnavailable:
            # Once more: a closed connection or a moved slot is no outage.
            await connection.call("SET", key, 1, "PX", _KEPT_MS)
