"""Redis with a replica and Sentinel, as child processes: what failover tests need.

Sentinel tells its clients the real addresses of the servers, so no proxy stands in between.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import TracebackType
from typing import Self

from service.embedded import RedisServer, free_port
from tests.support.waiting import wait_until

SENTINEL_NAME = "main"
_DOWN_AFTER_MS = 500


class ReplicatedRedis:
    """A primary and a replica, with Sentinel if asked for.

    Without Sentinel the replica is promoted by hand (`promote()`), late if need be.
    """

    def __init__(self, folder: Path, *, sentinel: bool = False) -> None:
        primary_port, replica_port = free_port(), free_port()
        # A short timeout and a small backlog: a replica that was stopped must resync for real.
        common = ["--repl-diskless-sync-delay", "0", "--repl-diskless-sync", "yes"]
        self.primary = RedisServer(folder / "primary", port=primary_port, arguments=common)
        self.replica = RedisServer(
            folder / "replica",
            port=replica_port,
            arguments=[*common, "--replicaof", "127.0.0.1", str(primary_port)],
        )
        self.sentinel: RedisServer | None = None
        if sentinel:
            self.sentinel = _sentinel(folder, primary_port)

    @property
    def url(self) -> str:
        """What a service is given as REDIS_URL."""
        if self.sentinel is None:
            return self.primary.url
        return f"redis+sentinel://127.0.0.1:{self.sentinel.port}/{SENTINEL_NAME}/0"

    async def __aenter__(self) -> Self:
        for server in self._servers():
            await asyncio.to_thread(server.start)
        await wait_until(self._in_sync, what="the replica in sync")
        if self.sentinel is not None:
            await wait_until(self._replica_known, what="the replica known to Sentinel")
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for server in reversed(self._servers()):
            await asyncio.to_thread(server.stop)

    async def promote(self) -> None:
        """Make the replica a primary, as it is."""
        await redis_cli(self.replica, "REPLICAOF", "NO", "ONE")

    async def wait_failover(self, *, timeout_s: float = 20.0) -> None:
        """Wait until Sentinel has made the replica the primary."""

        async def promoted() -> bool:
            return "role:master" in await redis_cli(self.replica, "INFO", "replication")

        await wait_until(promoted, timeout_s=timeout_s, what="the failover")

    def _servers(self) -> list[RedisServer]:
        servers = [self.primary, self.replica]
        return servers if self.sentinel is None else [*servers, self.sentinel]

    async def _in_sync(self) -> bool:
        return "master_link_status:up" in await redis_cli(self.replica, "INFO", "replication")

    async def _replica_known(self) -> bool:
        assert self.sentinel is not None
        known = await redis_cli(self.sentinel, "SENTINEL", "REPLICAS", SENTINEL_NAME)
        return f"127.0.0.1:{self.replica.port}" in known


def _sentinel(folder: Path, primary_port: int) -> RedisServer:
    # Sentinel rewrites its configuration file, so it has one of its own.
    data = folder / "sentinel"
    data.mkdir(parents=True, exist_ok=True)
    config = data / "sentinel.conf"
    config.write_text(
        f"sentinel monitor {SENTINEL_NAME} 127.0.0.1 {primary_port} 1\n"
        f"sentinel down-after-milliseconds {SENTINEL_NAME} {_DOWN_AFTER_MS}\n"
        f"sentinel failover-timeout {SENTINEL_NAME} 3000\n"
    )
    return RedisServer(data, port=free_port(), arguments=[str(config), "--sentinel"])


async def redis_cli(server: RedisServer, *command: str, timeout_s: float = 10.0) -> str:
    """Run one command with redis-cli and return what it printed; an error reply is raised."""
    process = await asyncio.create_subprocess_exec(
        str(server.cli), "-e", "-h", "127.0.0.1", "-p", str(server.port), *command,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(timeout_s):
            out, err = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
    if process.returncode != 0:
        raise RuntimeError(f"redis-cli {command[0]}: {(out + err).decode().strip()}")
    return out.decode()
