"""The faults of the TCP proxy, over real sockets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from tests.support.tcp_proxy import TcpProxy
from tests.support.waiting import wait_until

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture
async def echo_port() -> AsyncIterator[int]:
    """A server that sends back what it receives."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass  # reset by the proxy
        finally:
            writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


@pytest.fixture
async def proxy(echo_port: int) -> AsyncIterator[TcpProxy]:
    """A proxy in front of the echo server."""
    async with TcpProxy(echo_port, seed=1) as proxy:
        yield proxy


@asynccontextmanager
async def _connected(proxy: TcpProxy) -> AsyncIterator[Streams]:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def _echoed(streams: Streams, data: bytes) -> bytes:
    reader, writer = streams
    writer.write(data)
    return await asyncio.wait_for(reader.readexactly(len(data)), 10)


async def test_it_passes_bytes_both_ways(proxy: TcpProxy) -> None:
    """Without a fault no byte is lost or changed."""
    data = bytes(range(256)) * 4000
    async with _connected(proxy) as streams:
        assert await _echoed(streams, data) == data


async def test_the_end_of_one_side_reaches_the_other(proxy: TcpProxy) -> None:
    """An end of file is forwarded as an end of file."""
    async with _connected(proxy) as (reader, writer):
        writer.write(b"last words")
        writer.write_eof()
        assert await asyncio.wait_for(reader.read(), 10) == b"last words"
        await wait_until(lambda: proxy.open_connections == 0, what="the link gone")


async def test_cut_resets_open_connections(proxy: TcpProxy) -> None:
    """The client sees a reset."""
    async with _connected(proxy) as streams:
        await _echoed(streams, b"a")
        assert proxy.cut() == 1
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(streams[0].read(), 10)


async def test_after_a_cut_connections_can_be_made(proxy: TcpProxy) -> None:
    """A cut does not stop the proxy from accepting."""
    async with _connected(proxy) as streams:
        await _echoed(streams, b"a")
        proxy.cut()
    async with _connected(proxy) as streams:
        assert await _echoed(streams, b"b") == b"b"


async def test_refuse_refuses_until_healed(proxy: TcpProxy) -> None:
    """New connections are refused; after `heal()` the proxy listens on the same port."""
    await proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", proxy.port)
    await proxy.heal()
    async with _connected(proxy) as streams:
        assert await _echoed(streams, b"a") == b"a"


async def test_stall_accepts_and_passes_nothing_until_healed(proxy: TcpProxy) -> None:
    """Half-open: connections are accepted and no byte passes; held bytes pass after `heal()`."""
    async with _connected(proxy) as before:
        await _echoed(before, b"a")
        proxy.stall()
        async with _connected(proxy) as after:
            for _, writer in (before, after):
                writer.write(b"held")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(before[0].readexactly(1), 0.2)
            await proxy.heal()
            for reader, _ in (before, after):
                assert await asyncio.wait_for(reader.readexactly(4), 10) == b"held"


async def test_delay_holds_back_and_changes_nothing(proxy: TcpProxy) -> None:
    """Bytes are delivered late, and in order."""
    proxy.delay_s = 0.02
    async with _connected(proxy) as streams:
        for number in range(5):
            data = b"%d" % number * 1000
            assert await _echoed(streams, data) == data


async def test_drip_passes_a_few_bytes_a_second(proxy: TcpProxy) -> None:
    """2,000 bytes at 10,000 a second cannot take less than 0.2 s."""
    proxy.bytes_per_s = 10_000
    async with _connected(proxy) as streams:
        began_s = time.monotonic()
        assert await _echoed(streams, b"x" * 2000) == b"x" * 2000
        assert time.monotonic() - began_s >= 0.2


async def test_a_target_that_is_away_ends_the_connection(proxy: TcpProxy) -> None:
    """The proxy answers nothing itself."""
    proxy.target_port = 1
    async with _connected(proxy) as (reader, _):
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(reader.read(), 10)


async def test_a_target_that_dies_ends_the_connection() -> None:
    """A reset by the target is forwarded to the client."""

    def die(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    server = await asyncio.start_server(die, "127.0.0.1", 0)
    async with TcpProxy(server.sockets[0].getsockname()[1]) as proxy, _connected(proxy) as streams:
        streams[1].write(b"x")
        with suppress(ConnectionResetError):
            assert await asyncio.wait_for(streams[0].read(), 10) == b""
    server.close()
