"""Redis with a replica and Sentinel, or as a cluster, as child processes.

The servers of one topology share a password; Sentinel itself has none. No proxy can be between:
Sentinel and a cluster report the servers' real addresses to clients.
"""

from __future__ import annotations

import asyncio
import gc
import secrets
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from service.operate.embedded import RedisServer, free_port
from tests.support.waiting import wait_until

SENTINEL_NAME = "main"
SLOTS = 16384
_DOWN_AFTER_MS = 500
_NODE_TIMEOUT_MS = 1000
# A node listens for other nodes on its port + 10,000. That port too must be below those that Linux
# gives to clients (32,768 and above), and above those that `free_port` gives to other servers.
_NODE_PORTS = range(20_000, 22_768)


class ReplicatedRedis:
    """A primary and a replica, with Sentinel if asked for.

    Without Sentinel the replica is promoted by hand (`promote()`), late if need be.
    """

    def __init__(self, folder: Path, *, sentinel: bool = False) -> None:
        primary_port, replica_port = free_port(), free_port()
        # Full resyncs without a disk and without a delay keep the tests short.
        common = ["--repl-diskless-sync-delay", "0", "--repl-diskless-sync", "yes"]
        password = secrets.token_hex(32)
        self.primary = RedisServer(
            folder / "primary", port=primary_port, arguments=common, password=password
        )
        self.replica = RedisServer(
            folder / "replica",
            port=replica_port,
            arguments=[*common, "--replicaof", "127.0.0.1", str(primary_port)],
            password=password,
        )
        self.sentinel: RedisServer | None = None
        if sentinel:
            self.sentinel = _sentinel(folder, self.primary)

    @property
    def url(self) -> str:
        """REDIS_URL of a service."""
        if self.sentinel is None:
            return self.primary.url
        return (
            f"redis+sentinel://:{self.primary.password}@127.0.0.1:{self.sentinel.port}"
            f"/{SENTINEL_NAME}/0"
        )

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
            try:
                return "role:master" in await redis_cli(self.replica, "INFO", "replication")
            except RuntimeError:
                # A replica that is being promoted drops its clients.
                return False

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


def _sentinel(folder: Path, primary: RedisServer) -> RedisServer:
    # Sentinel rewrites its configuration file, so it has one of its own.
    data = folder / "sentinel"
    data.mkdir(parents=True, exist_ok=True)
    config = data / "sentinel.conf"
    config.touch(mode=0o600)
    config.write_text(
        f"sentinel monitor {SENTINEL_NAME} 127.0.0.1 {primary.port} 1\n"
        f"sentinel auth-pass {SENTINEL_NAME} {primary.password}\n"
        f"sentinel down-after-milliseconds {SENTINEL_NAME} {_DOWN_AFTER_MS}\n"
        f"sentinel failover-timeout {SENTINEL_NAME} 3000\n"
    )
    arguments = [str(config), "--sentinel"]
    return RedisServer(data, port=free_port(), arguments=arguments, password="")


class ClusterRedis:
    """A cluster of masters without replicas, each with a share of the slots.

    A killed node restarts without data, as the same node: its file has its id and its slots.
    """

    def __init__(self, folder: Path, *, nodes: int = 3) -> None:
        arguments = ["--cluster-enabled", "yes", "--cluster-node-timeout", str(_NODE_TIMEOUT_MS)]
        password = secrets.token_hex(32)
        self.nodes = [
            RedisServer(
                folder / f"node-{n}", port=free_node_port(), arguments=arguments, password=password
            )
            for n in range(nodes)
        ]

    @property
    def url(self) -> str:
        """REDIS_URL of a service: one node, which names the others."""
        return self.nodes[0].url.replace("redis://", "redis+cluster://")

    async def __aenter__(self) -> Self:
        for server in self.nodes:
            await asyncio.to_thread(server.start)
        share = -(-SLOTS // len(self.nodes))
        for number, server in enumerate(self.nodes):
            slots = range(number * share, min(SLOTS, (number + 1) * share))
            await redis_cli(server, "CLUSTER", "ADDSLOTS", *map(str, slots))
            # With equal epochs, two nodes that meet may mix up each other's votes.
            await redis_cli(server, "CLUSTER", "SET-CONFIG-EPOCH", str(number + 1))
        for server in self.nodes[1:]:
            await redis_cli(server, "CLUSTER", "MEET", "127.0.0.1", str(self.nodes[0].port))
        await self.wait_ok()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for server in self.nodes:
            await asyncio.to_thread(server.stop)

    async def wait_ok(self) -> None:
        """Wait until every node knows all others and serves its slots."""

        async def ok() -> bool:
            known = f"cluster_known_nodes:{len(self.nodes)}"
            infos = [await redis_cli(server, "CLUSTER", "INFO") for server in self.nodes]
            return all("cluster_state:ok" in each and known in each for each in infos)

        await wait_until(ok, timeout_s=20, what="the cluster")

    async def slot_of(self, key: str) -> int:
        """The slot that a key is in."""
        return int(await redis_cli(self.nodes[0], "CLUSTER", "KEYSLOT", key))

    async def holder_of(self, key: str) -> RedisServer:
        """The node that holds a key's slot."""
        slot = await self.slot_of(key)
        for server in self.nodes:
            lines = (await redis_cli(server, "CLUSTER", "NODES")).splitlines()
            (own,) = (line.split() for line in lines if "myself" in line)
            # The ranges come last; "[slot->-node]" is one that is on its way.
            for part in own[8:]:
                low, _, high = part.partition("-")
                if low.isdigit() and int(low) <= slot <= int(high or low):
                    return server
        raise LookupError(f"no node holds slot {slot}")

    async def begin_move(self, key: str, target: RedisServer) -> Move:
        """Begin to move a key's slot; its keys are where they were until they are moved."""
        move = Move(self.nodes, await self.slot_of(key), await self.holder_of(key), target)
        await move.begin()
        return move


class Move:
    """Moves a slot from one node to another, in the steps of `redis-cli --cluster reshard`."""

    def __init__(
        self, nodes: Sequence[RedisServer], slot: int, source: RedisServer, target: RedisServer
    ) -> None:
        self._nodes = nodes
        self._slot = str(slot)
        self._source = source
        self._target = target

    async def begin(self) -> None:
        """Mark the slot at both nodes; from then on, clients ask the target for absent keys."""
        source, target = await self._id_of(self._source), await self._id_of(self._target)
        await redis_cli(self._target, "CLUSTER", "SETSLOT", self._slot, "IMPORTING", source)
        await redis_cli(self._source, "CLUSTER", "SETSLOT", self._slot, "MIGRATING", target)

    async def move_keys(self) -> int:
        """Move the keys that are at the source now; return how many."""
        listed = await redis_cli(self._source, "CLUSTER", "GETKEYSINSLOT", self._slot, "10000")
        keys = listed.split()
        if keys:
            await redis_cli(
                self._source, "MIGRATE", "127.0.0.1", str(self._target.port), "", "0", "5000",
                "AUTH", self._target.password, "KEYS", *keys,
            )  # fmt: skip
        return len(keys)

    async def end(self) -> None:
        """Assign the slot to the target."""
        target = await self._id_of(self._target)
        for server in (self._target, self._source, *self._nodes):
            await redis_cli(server, "CLUSTER", "SETSLOT", self._slot, "NODE", target)

    async def _id_of(self, server: RedisServer) -> str:
        return (await redis_cli(server, "CLUSTER", "MYID")).strip()


def collect_dropped_nodes() -> None:
    """Collect redis-py's dropped nodes now, so that no other test gets their ResourceWarning.

    When a cluster changes, redis-py (8.1) replaces its node objects and drops the old ones. A
    call that runs at that time can have connected an old one again; nothing closes it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def free_node_port() -> int:
    """Return a free port that a cluster's node can have."""
    while (port := free_port()) not in _NODE_PORTS:
        pass
    return port


async def redis_cli(server: RedisServer, *command: str, timeout_s: float = 10.0) -> str:
    """Run one command with redis-cli and return what it printed; an error reply is raised."""
    process = await asyncio.create_subprocess_exec(
        str(server.cli), "-e", "-h", "127.0.0.1", "-p", str(server.port), *command,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE, env=server.cli_environment,
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
