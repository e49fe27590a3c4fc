"""The wire of a stream: the bytes it sends, and how it notices a client that takes none."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from service.http.wire import AsgiWire, Chunk, TransportWire, Wire, wire_for
from tests.support.waiting import wait_until
from tests.support.wire_server import REQUEST, client, serving


def test_a_chunk_is_framed_for_http() -> None:
    """RFC 9112 §7.1: size in hexadecimal, CRLF, data, CRLF."""
    assert Chunk(b"x" * 26).framed == b"1a\r\n" + b"x" * 26 + b"\r\n"


both = pytest.mark.parametrize("kind", [TransportWire, AsgiWire])


@both
async def test_written_chunks_arrive_as_one_http_response(kind: type[Wire]) -> None:
    """A stream is a plain HTTP/1.1 response: chunks, then the last chunk."""

    async def handle(wire: Wire) -> None:
        wire.write(Chunk(b"id: 1\n\n"))
        wire.write(Chunk(b"id: 2\n\n"))
        await wire.finish()

    async with serving(handle, kind=kind) as port, client(port) as (reader, _):
        head = await reader.readuntil(b"\r\n\r\n")
        body = await reader.readuntil(b"\r\n0\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"transfer-encoding: chunked" in head.lower()
        chunks = body.split(b"\r\n")
        assert b"".join(chunks[1::2]) == b"id: 1\n\nid: 2\n\n"
        assert all(
            int(size, 16) == len(data)
            for size, data in zip(chunks[::2], chunks[1::2], strict=False)
        )


@both
async def test_the_connection_serves_the_next_request_after_a_stream(kind: type[Wire]) -> None:
    """A stream that ended leaves the connection in the state that HTTP expects."""

    async def handle(wire: Wire) -> None:
        wire.write(Chunk(b"id: 1\n\n"))
        await wire.finish()

    async with serving(handle, kind=kind) as port, client(port) as (reader, writer):
        await reader.readuntil(b"0\r\n\r\n")
        writer.write(REQUEST)
        assert (await reader.readuntil(b"0\r\n\r\n")).startswith(b"HTTP/1.1 200")


@both
async def test_a_client_that_goes_away_is_noticed_without_a_write(kind: type[Wire]) -> None:
    """Dead connections of a quiet project are dropped at once."""
    wires: list[Wire] = []
    changes: list[bool] = []

    async def handle(wire: Wire) -> None:
        wire.on_change(lambda: changes.append(wire.lost))
        wires.append(wire)
        await wait_until(lambda: wire.lost, what="the end of the client")
        assert not wire.offer(Chunk(b"x"))
        await wire.finish()

    async with serving(handle, kind=kind) as port:
        async with client(port):
            await wait_until(lambda: bool(wires), what="the stream")
            assert not wires[0].lost
        await wait_until(lambda: bool(changes), what="the callback")
        assert changes[-1]


@both
async def test_a_client_that_takes_no_bytes_is_blocked(kind: type[Wire]) -> None:
    """§6, backpressure: noticed before more is written; announced when it takes bytes again."""
    wires: list[Wire] = []
    changes: list[bool] = []
    done = asyncio.Event()

    async def handle(wire: Wire) -> None:
        wire.on_change(lambda: changes.append(wire.blocked))
        wires.append(wire)
        await done.wait()

    async with serving(handle, kind=kind) as port:
        async with client(port, receive_buffer_bytes=4096) as (reader, _):
            await wait_until(lambda: bool(wires), what="the stream")
            wire = wires[0]
            written = 0

            def full() -> bool:
                nonlocal written
                written += wire.offer(Chunk(b"x" * 65_536))
                return wire.blocked and written < 1000

            await wait_until(full, what="blocked")
            assert not wire.offer(Chunk(b"x"))
            assert wire.backlog_bytes > 0
            while wire.blocked:
                assert await reader.read(65_536)
            await wait_until(
                lambda: False in changes, what="the callback when it takes bytes again"
            )
            done.set()


async def test_on_another_server_a_stream_uses_plain_asgi() -> None:
    """Where the server lends no transport, the wire writes through `send`."""

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        pass

    scope = cast("Any", {"type": "http"})
    wire = wire_for(scope, cast("Any", receive), cast("Any", send), dead_after_s=30)
    assert isinstance(wire, AsgiWire)
