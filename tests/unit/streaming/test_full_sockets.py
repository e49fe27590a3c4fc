"""Streams whose client reads nothing, over real sockets: what reaches it after their end."""

from __future__ import annotations

import asyncio

import pytest

from service.http.wire import AsgiWire, TransportWire, Wire
from service.streaming.connection import Connection
from service.streaming.stream_frames import CloseReason
from streams.tail.tail import offer_all
from tests.support.entries import message_entry
from tests.support.stream_harness import StreamHarness, stream_harness
from tests.support.waiting import wait_until
from tests.support.wire_server import client, serving

_PADDING = b"x" * 60_000


def _arrive(project: StreamHarness, text: bytes) -> None:
    """Let one large message arrive, in memory alone."""
    seq = project.tail.last_seq + 1
    data = b'{"seq":%d,"text":"%b","padding":"%b"}' % (seq, text, _PADDING)
    assert offer_all(project.tail, [message_entry(seq, data=data)]) == []
    project.tail.notify()


@pytest.mark.parametrize("kind", [TransportWire, AsgiWire])
@pytest.mark.parametrize("reason", ["access_revoked", "token_expired", "shutdown"])
async def test_a_full_socket_gets_nothing_of_what_came_after_its_end(
    kind: type[Wire], reason: CloseReason
) -> None:
    """G9: not one byte of what was committed after access ended, however full the socket is."""
    opened: list[Connection] = []
    ended: list[str] = []
    async with stream_harness() as project:

        async def handle(wire: Wire) -> None:
            connection = project.connection(wire)
            opened.append(connection)
            ended.append(await connection.run())

        async with (
            serving(handle, kind=kind, starts=False) as port,
            client(port, receive_buffer_bytes=4096) as (reader, _),
        ):
            await reader.readuntil(b"stream.live")
            (connection,) = opened

            def full() -> bool:
                _arrive(project, b"before")
                return connection.wire.blocked

            await wait_until(full, what="a full socket")
            connection.close(reason)
            _arrive(project, b"after")
            # Its client still reads nothing: it is given up all the same.
            await wait_until(lambda: bool(ended), what="the end of the stream")
            _arrive(project, b"later")
            got = b""
            try:
                while data := await asyncio.wait_for(reader.read(65_536), 10):
                    got += data
            except ConnectionError:
                pass  # cut off
        assert ended == [reason]
        assert b"before" in got
        assert b"after" not in got
        assert b"later" not in got


@pytest.mark.parametrize("kind", [TransportWire, AsgiWire])
async def test_a_client_that_makes_room_in_time_is_told_why(
    kind: type[Wire], monkeypatch: pytest.MonkeyPatch
) -> None:
    """§6: `stream.closing`, after what was written before and nothing else."""
    # However slow this machine is.
    monkeypatch.setattr("service.streaming.connection._CLOSING_GRACE_S", 30.0)
    opened: list[Connection] = []
    async with stream_harness() as project:

        async def handle(wire: Wire) -> None:
            connection = project.connection(wire)
            opened.append(connection)
            await connection.run()

        async with (
            serving(handle, kind=kind, starts=False) as port,
            client(port, receive_buffer_bytes=4096) as (reader, _),
        ):
            await reader.readuntil(b"stream.live")
            (connection,) = opened

            def full() -> bool:
                _arrive(project, b"before")
                return connection.wire.blocked

            await wait_until(full, what="a full socket")
            connection.close("access_revoked")
            _arrive(project, b"after")
            got = b""
            while b"stream.closing" not in got:
                data = await asyncio.wait_for(reader.read(65_536), 10)
                assert data, "cut off"
                got += data
        assert b"after" not in got
