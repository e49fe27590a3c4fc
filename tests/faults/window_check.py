"""Check the window in Redis after a fault: it must be a contiguous copy of the log's end (I2, G2).

The window may be behind the log or empty, since readers repair it. It must not have a gap, a
message that is not in the log, or a message whose content differs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import msgspec
import redis.asyncio as redis
from redis.exceptions import RedisError

from service.operate.embedded import RedisServer
from streams.window import keys
from tests.faults.world import World
from tests.support.history import LogRow


async def check_window(world: World, project_id: str, log: Sequence[LogRow]) -> list[str]:
    """Return what is wrong with a project's window on every Redis server that runs."""
    servers = [world.redis]
    if world.topology is not None:
        servers = [world.topology.primary, world.topology.replica]
    problems: list[str] = []
    for server in servers:
        if server.is_running():
            problems += await _check_server(server, project_id, log)
    return problems


async def _check_server(server: RedisServer, project_id: str, log: Sequence[LogRow]) -> list[str]:
    try:
        async with redis.Redis.from_url(server.url, socket_timeout=5, protocol=2) as client:
            reply = await client.xrange(keys.stream(project_id))
    except RedisError as error:
        return [f"the window cannot be read: {error!r}"]
    # Without decode_responses everything in a reply is bytes.
    entries = cast("list[tuple[bytes, dict[bytes, bytes]]]", reply)
    by_seq = {row.seq: row for row in log}
    problems: list[str] = []
    last: int | None = None
    for entry_id, fields in entries:
        seq, _, k = entry_id.decode().partition("-")
        if k != "0":
            continue
        if last is not None and int(seq) != last + 1:
            problems.append(f"the window has a gap between {last} and {seq}")
        last = int(seq)
        row = by_seq.get(last)
        if row is None:
            problems.append(f"the window has message {seq}, which is not in the log")
        elif msgspec.json.decode(fields[b"data"]) != msgspec.json.decode(row.data):
            problems.append(f"message {seq} differs between the window and the log")
    return problems
