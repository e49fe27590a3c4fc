"""The Python client's promise: each message once and in order, whatever happens on the way.

Real service processes behind `tests/support/tcp_proxy.py`; `stream.refused` from a literal.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable

import pytest

from service.client import Client, Event, FollowObserver, Message
from service.client.block_parser import Block
from tests.acceptance.conftest import NewProject, Project, Services
from tests.support.processes import ServiceProcess, service_environment
from tests.support.signing import token
from tests.support.tcp_proxy import TcpProxy
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
async def quick(
    services: Services, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[ServiceProcess]:
    """A process that asks for short waits."""
    environment = service_environment(
        services.database_url,
        services.redis.url,
        {"SEQSTREAM_RETRY_MS": "50"},
    )
    async with ServiceProcess("quick", tmp_path_factory.mktemp("quick"), environment) as process:
        yield process


class _Wire(FollowObserver):
    """Counts, and calls `on_bytes` for every piece."""

    def __init__(self, on_bytes: Callable[[int], None] = lambda size: None) -> None:
        self.cursors: list[int | None] = []
        self.reasons: list[str] = []
        self.fetched_seqs: list[int] = []
        self.names: list[str] = []
        self._on_bytes = on_bytes

    def connecting(self, cursor: int | None) -> None:
        self.cursors.append(cursor)

    def received(self, size_bytes: int) -> None:
        self._on_bytes(size_bytes)

    def block(self, block: Block) -> None:
        self.names.append(block.event)

    def fetched(self, message: Message) -> None:
        self.fetched_seqs.append(message.seq)

    def interrupted(self, why: str, wait_s: float) -> None:
        self.reasons.append(why)


class _Follower:
    """Follows in a task of its own; `seqs` are those of the messages so far."""

    def __init__(self, events: AsyncIterator[Event]) -> None:
        self.seqs: list[int] = []
        self.names: list[str] = []
        self._events = events
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        async for event in self._events:
            self.names.append(event.name)
            if isinstance(event, Message):
                self.seqs.append(event.seq)

    async def wait(self, condition: Callable[[], bool]) -> None:
        def holds() -> bool:
            if self._task.done():
                self._task.result()
            return condition()

        await wait_until(holds, timeout_s=40, what=f"the follower (has {self.seqs[-3:]})")

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


@contextlib.asynccontextmanager
async def _following(
    port: int, project: Project, wire: _Wire, *, after: int | None = 0, silence_s: float = 45.0
) -> AsyncIterator[_Follower]:
    url = f"http://127.0.0.1:{port}"
    async with Client(url, token("owner"), silence_s=silence_s) as client:
        follower = _Follower(client.follow(project.id, after=after, observer=wire))
        try:
            yield follower
        finally:
            await follower.close()


async def test_more_missed_than_are_replayed_come_in_order(
    quick: ServiceProcess, new_project: NewProject
) -> None:
    """`replay.end`: the range is fetched and comes before what follows it."""
    project = await new_project(quick)
    await project.fill(450)
    wire = _Wire()
    async with _following(quick.port, project, wire, after=10) as follower:
        await follower.wait(lambda: "stream.live" in follower.names)
        await project.fill(460)
        await follower.wait(lambda: bool(follower.seqs) and follower.seqs[-1] == 460)
        assert follower.seqs == list(range(11, 461))
    assert wire.fetched_seqs == list(range(211, 451))
    assert "replay.end" in wire.names
    assert "replay.end" not in follower.names


async def test_nothing_is_lost_or_repeated_over_random_cuts(
    quick: ServiceProcess, new_project: NewProject
) -> None:
    """Cuts after random numbers of bytes: in the opening, in the replay, in a gap, live."""
    project = await new_project(quick)
    await project.fill(420)
    rng = random.Random(1)
    left = 0

    def cut_at_times(size_bytes: int) -> None:
        nonlocal left
        left -= size_bytes
        if left < 0:
            proxy.cut()
            left = rng.randrange(30_000)

    wire = _Wire(cut_at_times)
    async with TcpProxy(quick.port) as proxy:
        proxy.bytes_per_s = 200_000
        async with _following(proxy.port, project, wire) as follower:
            for total in range(425, 465, 5):
                await project.fill(total)
                seen = len(follower.seqs)
                await follower.wait(lambda seen=seen: len(follower.seqs) > seen)  # type: ignore[misc]
            await follower.wait(lambda: len(follower.seqs) >= 460)
            assert follower.seqs == list(range(1, 461))
    assert len(wire.reasons) >= 5


async def test_a_restart_of_the_service_loses_nothing(
    services: Services, new_project: NewProject, quick: ServiceProcess
) -> None:
    """SIGTERM: `stream.closing`, then refused connections, then the rest of the messages."""
    project = await new_project(services.a)
    await project.fill(3)
    wire = _Wire()
    async with _following(quick.port, project, wire) as follower:
        await follower.wait(lambda: follower.seqs == [1, 2, 3])
        assert await quick.terminate() == 0
        await project.fill(6)
        await quick.start()
        await follower.wait(lambda: len(follower.seqs) >= 6)
        assert follower.seqs == [1, 2, 3, 4, 5, 6]
    assert wire.reasons[0] == "shutdown"
    assert wire.cursors[-1] == 3


async def test_a_cut_before_the_first_message_loses_nothing(
    quick: ServiceProcess, new_project: NewProject
) -> None:
    """Without a cursor the head of `stream.open` is one."""
    project = await new_project(quick)
    await project.fill(5)
    wire = _Wire()
    async with TcpProxy(quick.port) as proxy:
        async with _following(proxy.port, project, wire, after=None) as follower:
            await follower.wait(lambda: "stream.live" in follower.names)
            await proxy.refuse()
            await project.fill(7)
            await proxy.heal()
            await follower.wait(lambda: len(follower.seqs) >= 2)
            assert follower.seqs == [6, 7]
    assert wire.cursors[0] is None
    assert set(wire.cursors[1:]) == {5}


async def test_a_stalled_network_is_noticed_by_its_silence(
    quick: ServiceProcess, new_project: NewProject
) -> None:
    """No byte for `silence_s`, heartbeats included: another connection is made."""
    project = await new_project(quick)
    wire = _Wire()
    async with TcpProxy(quick.port) as proxy:
        async with _following(proxy.port, project, wire, silence_s=3) as follower:
            await follower.wait(lambda: "heartbeat" in wire.names)
            assert wire.reasons == []
            proxy.stall()
            await project.fill(1)
            await follower.wait(lambda: bool(wire.reasons))
            proxy.cut()
            await proxy.heal()
            await follower.wait(lambda: follower.seqs == [1])
    assert wire.reasons[0] == "ReadTimeout"


_OPEN = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
_REFUSED = (
    b"retry: 300\nid: 4\nevent: stream.refused\n"
    b'data: {"code":"RATE_LIMITED","retryAfterMs":300}\n\n'
)
_SERVED = (
    b'retry: 50\nid: 4\nevent: stream.open\ndata: {"projectId":"p","cursor":4,"headSeq":4}\n\n'
    b'event: stream.live\ndata: {"projectId":"p","headSeq":4}\n\n'
)


async def test_a_refusal_in_band_is_waited_out() -> None:
    """`stream.refused`: the same cursor again, no sooner than `retryAfterMs` says."""
    heads: list[bytes] = []
    waits: list[float] = []

    class Waits(_Wire):
        def interrupted(self, why: str, wait_s: float) -> None:
            super().interrupted(why, wait_s)
            waits.append(wait_s)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(_OPEN + (_REFUSED if len(heads) < 2 else _SERVED))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    wire = Waits()
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with Client(url, "t") as client, asyncio.timeout(20):
            async for event in client.follow("p", after=4, observer=wire):
                if event.name == "stream.live":
                    break
    assert wire.reasons == ["RATE_LIMITED"]
    assert waits[0] >= 0.3
    assert all(b"\r\nLast-Event-ID: 4\r\n" in head for head in heads)
    assert b"/v1/projects/p/chat/stream?heartbeat=15 HTTP/1.1" in heads[0]
