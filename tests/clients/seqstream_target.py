"""This project's service as a target: real processes on a Postgres and a Redis of their own.

Scenarios that neither stop the service nor fill its limits share one process; those that refuse
share one with room for a single stream of a user; each that restarts has one for itself while it
runs, which the next takes over.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from itertools import count
from pathlib import Path
from urllib.parse import urlencode

import httpx
import msgspec

from service.operate.embedded import PostgresServer, RedisServer
from tests.clients.reading import Reading
from tests.clients.records import Sent
from tests.clients.target import Control
from tests.support.api import Api
from tests.support.processes import (
    ServiceProcess,
    migrate,
    postgres_folder,
    service_environment,
)
from tests.support.signing import token

_USER = "owner"
_BATCH = 100
_API_TIMEOUT_S = 30.0  # the machine is busy with other clients
# Reconnects begin after a moment: the suite tests what clients do, not how long they wait.
_SETTINGS = {"SEQSTREAM_RETRY_MS": "300", "SEQSTREAM_POSTS_PER_SECOND": "0"}
_TIGHT = {**_SETTINGS, "SEQSTREAM_MAX_STREAMS_PER_USER": "1"}
_numbers = count(1)


class _ReplayEnd(msgspec.Struct, rename="camel"):
    last_replayed_seq: int
    live_from_seq: int


class SeqstreamChannel:
    """A project. Its messages are posted through `poster`, which outlives `process`."""

    host = "127.0.0.1"

    def __init__(self, project_id: str, process: ServiceProcess, api: Api) -> None:
        self.project_id = project_id
        self.port = process.port
        self.token = token(_USER, projects=[project_id])
        self._process = process
        self._api = api
        self._occupying: asyncio.Task[None] | None = None

    def path(self, heartbeat_s: int | None) -> str:
        """See `Channel`."""
        query = {"token": self.token}
        if heartbeat_s is not None:
            query["heartbeat"] = str(heartbeat_s)
        return f"/v1/projects/{self.project_id}/chat/stream?{urlencode(query)}"

    async def post(self, texts: Sequence[str]) -> list[Sent]:
        """See `Channel`."""
        if len(texts) == 1:
            posted = await self._api.post(self.project_id, texts[0])
            return [Sent(texts[0], posted.seq)]
        sent: list[Sent] = []
        for start in range(0, len(texts), _BATCH):
            batch = texts[start : start + _BATCH]
            body = {"messages": [{"message": text} for text in batch]}
            path = f"/v1/projects/{self.project_id}/chat/messages/batch"
            answer = await self._api.request("POST", path, body)
            results = answer.raise_for_status().json()["results"]
            sent += [Sent(text, result["seq"]) for text, result in zip(batch, results, strict=True)]
        return sent

    async def stop(self) -> None:
        """See `Channel`."""
        await self._process.terminate()

    async def start(self) -> None:
        """See `Channel`."""
        await self._process.start()

    async def occupy(self) -> None:
        """See `Channel`: the user's only stream is another one."""
        opened = asyncio.Event()
        self._occupying = asyncio.create_task(self._hold_stream(opened))
        await asyncio.wait_for(opened.wait(), 10)

    async def leave(self) -> None:
        """See `Channel`."""
        assert self._occupying is not None
        self._occupying.cancel()
        await asyncio.gather(self._occupying, return_exceptions=True)
        self._occupying = None

    async def close(self) -> None:
        """End what the channel runs."""
        if self._occupying is not None:
            await self.leave()

    def gap(self, data: str) -> tuple[int, int] | None:
        """See `Channel`; `replay.end` excludes both its numbers."""
        end = msgspec.json.decode(data, type=_ReplayEnd)
        first, last = end.last_replayed_seq + 1, end.live_from_seq - 1
        return (first, last) if first <= last else None

    async def history(self, first: int, last: int) -> list[Sent]:
        """See `Channel`."""
        page = await self._api.history_page(
            self.project_id, after_seq=first - 1, before_seq=last + 1, limit=500, order="asc"
        )
        rows = [msgspec.json.decode(raw) for raw in page.messages]
        return [Sent(row["content"]["text"], row["seq"]) for row in rows]

    async def _hold_stream(self, opened: asyncio.Event) -> None:
        url = f"{self._process.url}{self.path(None)}"
        async with httpx.AsyncClient(timeout=None, trust_env=False, verify=False) as http:
            while True:
                # Without `Accept` a refusal is a status.
                async with http.stream("GET", url) as answer:
                    if answer.status_code == 200:
                        opened.set()
                        async for _ in answer.aiter_raw():
                            pass
                await asyncio.sleep(0.05)


class SeqstreamTarget:
    """See `Target`."""

    name = "seqstream"
    controls = frozenset(Control)
    reading = Reading(
        message_events=frozenset({"message.new", "message.replay"}),
        text="content.text",
        number="seq",
        id_is_number=True,
    )
    longest_text_bytes = 65_536
    ready_event: str | None = "stream.live"
    heartbeat_event: str | None = "heartbeat"
    refused_event: str | None = "stream.refused"
    gap_event: str | None = "replay.end"
    replay_limit = 200

    def __init__(
        self, database_url: str, redis_url: str, folder: Path, shared: ServiceProcess
    ) -> None:
        self._database_url = database_url
        self._redis_url = redis_url
        self._folder = folder
        self._shared = shared
        self._tight = self._process("tight", _TIGHT)
        self._tight_start = asyncio.Lock()
        self._own: list[ServiceProcess] = []  # idle ones

    @contextlib.asynccontextmanager
    async def channel(self, controls: frozenset[Control]) -> AsyncIterator[SeqstreamChannel]:
        """See `Target`."""
        number = next(_numbers)
        async with contextlib.AsyncExitStack() as stack:
            process = self._shared
            if Control.RESTART in controls:
                process = (
                    self._own.pop() if self._own else self._process(f"own-{number}", _SETTINGS)
                )
                stack.callback(self._own.append, process)
                if not process.is_running():
                    await process.start()
            elif Control.REFUSE in controls:
                process = await self._started_tight()
            # Through the shared process, so that messages can be posted while another is stopped.
            api = await stack.enter_async_context(
                Api(self._shared.url, _USER, timeout_s=_API_TIMEOUT_S)
            )
            project_id = f"clients-{number}"
            await api.create_project(project_id)
            channel = SeqstreamChannel(project_id, process, api)
            stack.push_async_callback(channel.close)
            yield channel

    async def close(self) -> None:
        """End the processes that were started for channels."""
        for process in (self._tight, *self._own):
            await process.stop()

    def _process(self, name: str, settings: dict[str, str]) -> ServiceProcess:
        environment = service_environment(self._database_url, self._redis_url, settings)
        return ServiceProcess(name, self._folder, environment)

    async def _started_tight(self) -> ServiceProcess:
        async with self._tight_start:
            if not self._tight.is_running():
                await self._tight.start()
        return self._tight


@contextlib.asynccontextmanager
async def seqstream_on(
    database_url: str, redis_url: str, folder: Path
) -> AsyncIterator[SeqstreamTarget]:
    """Run the service on servers that run already."""
    environment = service_environment(database_url, redis_url, _SETTINGS)
    async with ServiceProcess("shared", folder, environment) as shared:
        target = SeqstreamTarget(database_url, redis_url, folder, shared)
        try:
            yield target
        finally:
            await target.close()


@contextlib.asynccontextmanager
async def seqstream(folder: Path) -> AsyncIterator[SeqstreamTarget]:
    """Run the service with servers of its own."""
    with contextlib.ExitStack() as stack:
        data = stack.enter_context(postgres_folder())
        settings = {"max_connections": "300", "full_page_writes": "off"}
        postgres = PostgresServer(data / "data", fsync=False, settings=settings)
        redis = RedisServer(folder / "redis")
        for server in (postgres, redis):
            await asyncio.to_thread(server.start)
            stack.callback(server.stop)
        database_url = await asyncio.to_thread(postgres.create_database, "clients")
        await asyncio.to_thread(migrate, database_url)
        async with seqstream_on(database_url, redis.url, folder) as target:
            yield target
