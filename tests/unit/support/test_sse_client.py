"""The recording client behaves as browsers do, tested with literal bytes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from tests.support.history import Event
from tests.support.sse_client import SseClient
from tests.support.waiting import wait_until

_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
_OPEN = b"event: stream.open\nid: 4\nretry: 10\ndata: {}\n\n"


def _message(seq: int) -> bytes:
    return b'event: message.new\nid: %d\ndata: {"seq":%d}\n\n' % (seq, seq)


class _Script:
    """Answers the n-th request with the n-th bytes, then keeps the connection open or ends it."""

    def __init__(self, *answers: bytes) -> None:
        self.requests: list[str] = []
        self.sent_bytes = 0
        self._answers = list(answers)
        self._writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        with suppress(OSError, asyncio.IncompleteReadError):
            self.requests.append((await reader.readuntil(b"\r\n\r\n")).decode())
            answer = self._answers[min(len(self.requests), len(self._answers)) - 1]
            for start in range(0, len(answer), 4096):
                writer.write(answer[start : start + 4096])
                await writer.drain()
                self.sent_bytes += len(answer[start : start + 4096])
            if len(self.requests) < len(self._answers):
                writer.close()
            else:
                await reader.read()

    def close(self) -> None:
        for writer in self._writers:
            writer.transport.abort()


@asynccontextmanager
async def _serving(*answers: bytes) -> AsyncIterator[tuple[_Script, str]]:
    script = _Script(*answers)
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(script.serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield script, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        script.close()
        await asyncio.gather(*tasks)


def _client(url: str, **options: object) -> SseClient:
    make: Callable[..., SseClient] = SseClient
    return make("a", [url], "p", "secret", **options)


def _named(events: list[Event]) -> list[tuple[str, str]]:
    return [(event.name, event.event_id) for event in events]


async def test_every_block_is_recorded_with_its_id() -> None:
    """§6: the first block's id is the cursor; a block without data is recorded without a name."""
    stream = _HEAD + _OPEN + b"id: 4\n\n" + _message(5)
    async with _serving(stream) as (_, url), _client(url) as client:
        await client.wait_seq(5)
    assert _named(client.events()) == [
        ("stream.open", "4"),
        ("", "4"),
        ("message.new", "5"),
    ]
    assert client.events("message.new")[0].data == b'{"seq":5}'


async def test_it_reconnects_with_the_last_id() -> None:
    """The cursor is the last message's id; the URL stays the same, with Last-Event-ID added."""
    script = (_HEAD + _OPEN + _message(5), _HEAD + _message(6))
    async with _serving(*script) as (server, url), _client(url, from_seq=4) as client:
        await client.wait_seq(6)
    assert "Last-Event-ID" not in server.requests[0]
    assert "from_seq=4" in server.requests[1]
    assert "Last-Event-ID: 5\r\n" in server.requests[1]
    assert [connection.cursor for connection in client.history().connections] == ["4", "5"]


async def test_the_id_of_the_opening_is_a_cursor() -> None:
    """docs/protocol.md §6: a reconnect before the first message loses none."""
    async with (
        _serving(_HEAD + _OPEN, _HEAD) as (server, url),
        _client(url, from_seq=None) as client,
    ):
        await client.wait_until(lambda _: len(server.requests) == 2, timeout_s=10)
    assert "Last-Event-ID: 4\r\n" in server.requests[1]
    assert [connection.cursor for connection in client.history().connections] == [None, "4"]


async def test_a_block_that_was_cut_off_is_no_event() -> None:
    """An incomplete block, without its blank line, does not move the cursor either."""
    cut = _HEAD + _OPEN + _message(5)[:-1]
    async with _serving(cut, _HEAD + _message(5)) as (server, url), _client(url) as client:
        await client.wait_seq(5)
    assert "Last-Event-ID: 4\r\n" in server.requests[1]
    assert len(client.events("message.new")) == 1


async def test_retry_is_honoured() -> None:
    """`retry` sets the time until the next connection, in milliseconds."""
    async with _serving(_HEAD + _OPEN + _message(5)) as (_, url), _client(url) as client:
        await client.wait_seq(5)
        assert client.retry_s == 0.01


async def test_it_does_not_reconnect_after_an_http_error() -> None:
    """An EventSource does not reconnect after a status other than 200."""
    refused = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"
    async with _serving(refused) as (_, url), _client(url) as client:
        await wait_until(lambda: client.failure is not None)
    assert client.failure == "status 503, "


async def test_silence_ends_a_connection_when_a_limit_is_set() -> None:
    """A client that watches heartbeats reconnects after silence; a plain EventSource does not."""
    async with (
        _serving(_HEAD + _OPEN, _HEAD + _OPEN) as (server, url),
        _client(url, silence_limit_s=0.05) as client,
    ):
        await client.wait_until(lambda _: len(server.requests) >= 3, timeout_s=10)


async def test_it_reconnects_to_the_next_address() -> None:
    """As behind a load balancer."""
    async with (
        _serving(_HEAD + _OPEN, b"") as (_, first),
        _serving(_HEAD + _message(5)) as (server, second),
        SseClient("a", [first, second], "p", "secret") as client,
    ):
        await client.wait_seq(5)
    assert "Last-Event-ID: 4\r\n" in server.requests[0]


async def test_a_stalled_client_reads_nothing_more() -> None:
    """The server's writes block until the client resumes."""
    stream = _HEAD + _OPEN + b"".join(_message(seq) for seq in range(5, 200_000))
    async with (
        _serving(stream) as (server, url),
        _client(url, stall_after=3) as client,
    ):
        await client.wait_seq(7)
        assert len(client.events("message.new")) == 3
        assert server.sent_bytes < len(stream)
        client.resume()
        await client.wait_seq(199_999, timeout_s=40)


async def test_a_slow_client_gets_everything_late() -> None:
    """The stream is read in small pieces and parsed to the same events."""
    stream = _HEAD + _OPEN + b"".join(_message(seq) for seq in range(5, 30))
    async with (
        _serving(stream) as (_, url),
        _client(url, slow_bytes_per_s=20_000) as client,
    ):
        await client.wait_seq(29)
    assert [event.event_id for event in client.events("message.new")] == [
        str(seq) for seq in range(5, 30)
    ]
