"""docs/protocol.md §2, G2, G3: foreign entries in Redis reach no client and end no stream."""

from __future__ import annotations

from streams.window import keys
from streams.window.redis_client import RedisClient
from tests.acceptance.conftest import NewProject, Services
from tests.support.sse_client import SseClient

_FOREIGN = [
    ("1-1", ["x", "y"]),
    ("1-2", ["event", "x\ndata: {}", "data", '{"entryId":"1-2"}', "at", "1"]),
    ("1-3", ["event", "build.status", "data", '{"entryId":"1-3",\n\n"x":1}', "at", "1"]),
    ("999999-0", ["event", "message.new", "data", "{", "at", "1"]),
]


async def test_streams_of_two_processes_continue_after_foreign_entries(
    services: Services, new_project: NewProject
) -> None:
    """G3: each client gets each message of the log once, and nothing else."""
    project = await new_project(services.a)
    async with (
        SseClient("a", [services.a.url], project.id, project.token) as one,
        SseClient("b", [services.b.url], project.id, project.token) as two,
    ):
        raw = RedisClient(services.redis.url)
        for client in (one, two):
            await client.wait_live()
        await project.fill(1)
        for client in (one, two):
            await client.wait_seq(1)
        for entry_id, fields in _FOREIGN:
            await raw.call("XADD", keys.stream(project.id), entry_id, *fields)
        await raw.close()
        for seq in range(2, 6):
            await project.fill(seq)
            for client in (one, two):
                await client.wait_seq(seq)
        for client in (one, two):
            assert [event.event_id for event in client.events("message.new")] == list("12345")
            assert client.events("build.status") == []
            assert client.reconnects == 0
    metrics = await project.api.request("GET", "/metrics")
    (line,) = (
        line
        for line in metrics.text.splitlines()
        if line.startswith("stream_entries_skipped_total")
    )
    assert float(line.split()[1]) >= len(_FOREIGN)
