"""The proxy's cuts, over real sockets, in front of a server that sends one canned response."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.clients.cutting_proxy import CuttingProxy
from tests.clients.response_meter import Cut
from tests.support.waiting import wait_until

OPEN = b"event: stream.open\nid: 0\ndata: {}\n\n"
NEW = b"event: message.new\nid: 1\ndata: {}\n\n"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
WHOLE = HEAD + OPEN + NEW
REQUEST = b"GET /stream HTTP/1.1\r\nHost: x\r\nLast-Event-ID: 5\r\n\r\n"


@pytest.fixture
async def proxy() -> AsyncIterator[CuttingProxy]:
    """A proxy in front of a server that answers with two blocks and keeps the stream open."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(WHOLE)
            await reader.read()
        except OSError:
            pass  # reset by the proxy
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with CuttingProxy("127.0.0.1", server.sockets[0].getsockname()[1]) as proxy:
        yield proxy
    server.close()


@asynccontextmanager
async def _asked(proxy: CuttingProxy) -> AsyncIterator[asyncio.StreamReader]:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    try:
        writer.write(REQUEST)
        yield reader
    finally:
        writer.transport.abort()


async def _whole(proxy: CuttingProxy) -> bytes:
    async with _asked(proxy) as reader:
        return await asyncio.wait_for(reader.readexactly(len(WHOLE)), 10)


async def _until_end(reader: asyncio.StreamReader) -> tuple[bytes, bool]:
    """Return what came, and whether the end was a reset."""
    got = b""
    try:
        async with asyncio.timeout(10):
            while data := await reader.read(65_536):
                got += data
    except ConnectionResetError:
        return got, True
    return got, False


async def test_without_a_cut_everything_passes(proxy: CuttingProxy) -> None:
    """The response arrives whole, and the request is recorded."""
    assert await _whole(proxy) == WHOLE
    assert [request.cursor for request in proxy.requests] == ["5"]
    assert (proxy.events("stream.open"), proxy.events("message.new")) == (1, 1)
    assert proxy.answers() == {200: 1}


@pytest.mark.parametrize(
    ("cut", "kept"),
    [(Cut(head=True), HEAD), (Cut(blocks=1), HEAD + OPEN), (Cut(body_bytes=7), HEAD + OPEN[:7])],
    ids=["head", "block", "bytes"],
)
@pytest.mark.parametrize("reset", [True, False])
async def test_the_next_connection_is_cut_at_its_place(
    proxy: CuttingProxy, cut: Cut, kept: bytes, reset: bool
) -> None:
    """The client gets what precedes the cut, then a reset or an end; only that connection."""
    proxy.cut_next(Cut(cut.head, cut.blocks, cut.body_bytes, reset=reset))
    async with _asked(proxy) as reader:
        assert await _until_end(reader) == (kept, reset)
    assert proxy.cuts_made == 1
    assert await _whole(proxy) == WHOLE


async def test_after_a_cut_that_holds_a_connection_waits_for_its_release(
    proxy: CuttingProxy,
) -> None:
    """What is done between a cut and the reconnect is done before the request arrives."""
    proxy.cut_next(Cut(blocks=1, hold=True))
    async with _asked(proxy) as reader:
        await _until_end(reader)
    async with _asked(proxy) as reader:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.readexactly(1), 0.1)
        assert len(proxy.requests) == 1
        proxy.release()
        await asyncio.wait_for(reader.readexactly(len(HEAD)), 10)
    assert len(proxy.requests) == 2


async def test_an_open_connection_can_be_cut_at_once(proxy: CuttingProxy) -> None:
    """What it got is not taken back."""
    async with _asked(proxy) as reader:
        await asyncio.wait_for(reader.readexactly(len(WHOLE)), 10)
        proxy.cut_now()
        assert await _until_end(reader) == (b"", True)


async def test_a_target_that_is_away_ends_the_connection() -> None:
    """As a service that is down behind a load balancer."""
    async with CuttingProxy("127.0.0.1", 1) as proxy, _asked(proxy) as reader:
        assert (await _until_end(reader))[0] == b""


async def test_bytes_that_are_no_response_are_reported() -> None:
    """The proxy could not tell where a cut falls, so the scenario must not pass."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"nonsense\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with CuttingProxy("127.0.0.1", port) as proxy, _asked(proxy) as reader:
        await _until_end(reader)
        await wait_until(lambda: proxy.fault is not None, what="the fault")
    server.close()
