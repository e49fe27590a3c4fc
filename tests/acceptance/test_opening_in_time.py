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
# Far below what Postgres' own time limits are.
IN_TIME_S = 8.0


class Stage(NamedTuple):
    """A process whose Postgres can be made to hang."""

    process: ServiceProcess
    proxy: TcpProxy


@pytest.fixture
async def stage(services: Services, tmp_path: Path) -> AsyncIterator[Stage]:
    """A process with the default deadline and one stream a user."""
    port = urlsplit(services.database_url).port
    assert port is not None
    async with TcpProxy(port) as proxy:
        url = services.database_url.replace(f":{port}/", f":{proxy.port}/")
        settings = {"SEQSTREAM_MAX_STREAMS_PER_USER": "1"}
        environment = service_environment(url, services.redis.url, settings)
        async with ServiceProcess("service", tmp_path, environment) as process:
            try:
                yield Stage(process, proxy)
            finally:
                await proxy.heal()


@contextlib.asynccontextmanager
async def _opening(
    stage: Stage, project: Project, user: str, query: str
) -> AsyncIterator[RawResponse]:
    target = f"/v1/projects/{project.id}/chat/stream?token={token(user)}&{query}"
    async with raw_request(stage.process.port, target, headers=STREAM) as response:
        yield response


async def test_while_postgres_hangs_what_is_covered_is_served_and_the_rest_refused(
    stage: Stage, new_project: NewProject
) -> None:
    """For callers confirmed within the last minute; in time, all of it."""
    read, unread, long = [await new_project(stage.process) for _ in range(3)]
    for user in ("known", "unknown"):
        await read.api.add_member(read.id, user)
    await read.fill(5)
    await unread.fill(5)
    await long.fill(300)
    async with _opening(stage, read, "known", "from_seq=5") as earlier:
        await earlier.wait_for("stream.live")
    async with _opening(stage, read, "owner", "from_seq=5") as open_one:
        await open_one.wait_for("stream.live")
        stage.proxy.stall()
        async with _opening(stage, read, "known", "from_seq=2") as from_memory:
            await from_memory.wait_for("stream.live", timeout_s=IN_TIME_S)
            assert from_memory.names.count("message.replay") == 3
        async with _opening(stage, unread, "owner", "from_seq=2") as from_redis:
            await from_redis.wait_for("stream.live", timeout_s=IN_TIME_S)
            assert from_redis.names.count("message.replay") == 3
        # Not confirmed here; and further behind than Redis reaches.
        for project, user in ((read, "unknown"), (long, "owner")):
            async with _opening(stage, project, user, "from_seq=0") as refused:
                await refused.wait_end(timeout_s=IN_TIME_S)
                assert refused.names == ["stream.refused"]
                assert b'"code":"STORE_UNAVAILABLE"' in refused.body
        assert not open_one.ended
    await stage.proxy.heal()

    async def opens() -> bool:
        # One stream a user: what was refused holds no place.
        async with _opening(stage, long, "owner", "from_seq=200") as opened:
            await wait_until(lambda: bool(opened.names), what="an event")
            return opened.names[0] == "stream.open"

    await wait_until(opens, timeout_s=30, what="a stream after the outage")

    async def none_open() -> bool:
        async with httpx.AsyncClient(trust_env=False, verify=False) as http:
            text = (await http.get(f"{stage.process.url}/metrics")).text
        return "\nsse_connections 0.0\n" in text

    await wait_until(none_open, what="no stream is left")
