"""docs/protocol.md §6: a stream opens in time or is refused, also while Postgres hangs."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import httpx
import pytest

from tests.acceptance.conftest import NewProject, Project, Services
from tests.support.processes import ServiceProcess, service_environment
from tests.support.raw_stream import RawResponse, raw_request
from tests.support.signing import token
from tests.support.tcp_proxy import TcpProxy
from tests.support.waiting import wait_until

STREAM = {"Accept": "text/event-stream"}
# Far below the time limits of the Postgres connections.
IN_TIME_S = 8.0


class StallableService(NamedTuple):
    """A process that reaches Postgres through a proxy, which can stall."""

    process: ServiceProcess
    proxy: TcpProxy


@pytest.fixture
async def stallable(services: Services, tmp_path: Path) -> AsyncIterator[StallableService]:
    """A process with the default deadline and a limit of one stream per user."""
    port = urlsplit(services.database_url).port
    assert port is not None
    async with TcpProxy(port) as proxy:
        url = services.database_url.replace(f":{port}/", f":{proxy.port}/")
        settings = {"SEQSTREAM_MAX_STREAMS_PER_USER": "1"}
        environment = service_environment(url, services.redis.url, settings)
        async with ServiceProcess("service", tmp_path, environment) as process:
            try:
                yield StallableService(process, proxy)
            finally:
                await proxy.heal()


@contextlib.asynccontextmanager
async def _opening(
    stallable: StallableService, project: Project, user: str, query: str
) -> AsyncIterator[RawResponse]:
    target = f"/v1/projects/{project.id}/chat/stream?token={token(user)}&{query}"
    async with raw_request(stallable.process.port, target, headers=STREAM) as response:
        yield response


async def test_a_hanging_postgres_refuses_only_streams_that_memory_and_redis_cannot_serve(
    stallable: StallableService, new_project: NewProject
) -> None:
    """Only users whose access was confirmed within the last minute; all responses are in time."""
    read, unread, long = [await new_project(stallable.process) for _ in range(3)]
    for user in ("confirmed", "unconfirmed"):
        await read.api.add_member(read.id, user)
    await read.fill(5)
    await unread.fill(5)
    await long.fill(300)
    async with _opening(stallable, read, "confirmed", "from_seq=5") as earlier:
        await earlier.wait_for("stream.live")
    async with _opening(stallable, read, "owner", "from_seq=5") as open_one:
        await open_one.wait_for("stream.live")
        stallable.proxy.stall()
        async with _opening(stallable, read, "confirmed", "from_seq=2") as from_memory:
            await from_memory.wait_for("stream.live", timeout_s=IN_TIME_S)
            assert from_memory.names.count("message.replay") == 3
        async with _opening(stallable, unread, "owner", "from_seq=2") as from_redis:
            await from_redis.wait_for("stream.live", timeout_s=IN_TIME_S)
            assert from_redis.names.count("message.replay") == 3
        # One user is not confirmed; the other cursor is older than the window in Redis.
        for project, user in ((read, "unconfirmed"), (long, "owner")):
            async with _opening(stallable, project, user, "from_seq=0") as refused:
                await refused.wait_end(timeout_s=IN_TIME_S)
                assert refused.names == ["stream.refused"]
                assert b'"code":"STORE_UNAVAILABLE"' in refused.body
        assert not open_one.ended
    await stallable.proxy.heal()

    async def opens() -> bool:
        # The limit is one stream per user: a refused stream must not count.
        async with _opening(stallable, long, "owner", "from_seq=200") as opened:
            await wait_until(lambda: bool(opened.names), what="an event")
            return opened.names[0] == "stream.open"

    await wait_until(opens, timeout_s=30, what="a stream after the outage")

    async def none_open() -> bool:
        async with httpx.AsyncClient(trust_env=False, verify=False) as http:
            text = (await http.get(f"{stallable.process.url}/metrics")).text
        return "\nsse_connections 0.0\n" in text

    await wait_until(none_open, what="no open stream")
