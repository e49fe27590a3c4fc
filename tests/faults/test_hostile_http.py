"""Hostile HTTP does not affect other callers.

While the hostile connections are open, posts are answered and a stream delivers; memory stays
bounded, and afterwards the connections are closed. No time is judged.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from tests.conftest import StartService
from tests.support.api import Api
from tests.support.processes import ServiceProcess
from tests.support.signing import signed_headers, token
from tests.support.sse_client import SseClient
from tests.support.waiting import wait_until

# A timeout by thread would end pytest at once and leave the servers running.
pytestmark = pytest.mark.timeout(60, method="signal")

_MESSAGES = "/v1/projects/p/chat/messages"
_POSTS = 20
_SEND_FOR_S = 2.0
# For all connections of one attack together; an idle process has some 70 MiB.
_ALLOWED_GROWTH_BYTES = 64 * 2**20

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Attack = Callable[[ServiceProcess], Awaitable[list[Connection]]]


async def _connect(service: ServiceProcess, data: bytes) -> Connection:
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    with contextlib.suppress(OSError):
        writer.write(data)
        await writer.drain()
    return reader, writer


async def _flood(service: ServiceProcess, first: bytes, again: bytes) -> Connection:
    """Send `first`, then `again` repeatedly, for at most `_SEND_FOR_S`."""
    reader, writer = await _connect(service, first)
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(_SEND_FOR_S):
            while True:
                writer.write(again)
                await writer.drain()
    return reader, writer


def _head(*lines: str, target: str = _MESSAGES, method: str = "POST") -> bytes:
    return "\r\n".join([f"{method} {target} HTTP/1.1", "Host: x", *lines, "", ""]).encode()


def _signed(body_lines: tuple[str, ...]) -> bytes:
    headers = signed_headers("POST", _MESSAGES, "u", b"")
    return _head(*(f"{name}: {value}" for name, value in headers.items()), *body_lines)


async def _silent(service: ServiceProcess) -> list[Connection]:
    """A thousand connections that send nothing."""
    return [await _connect(service, b"") for _ in range(1000)]


async def _half_a_head(service: ServiceProcess) -> list[Connection]:
    """Five hundred requests whose headers never end."""
    return [await _connect(service, _head("X-A: b")[:-2]) for _ in range(500)]


async def _endless_header(service: ServiceProcess) -> list[Connection]:
    """One header that never ends."""
    return [await _flood(service, _head()[:-2] + b"X-Filler: ", b"a" * 65_536)]


async def _many_headers(service: ServiceProcess) -> list[Connection]:
    """Headers without end, large and small."""
    large, small = b"X-A: " + b"a" * 60_000 + b"\r\n", b"X-A: a\r\n" * 5000
    return [await _flood(service, _head()[:-2], again) for again in (large, small)]


async def _endless_target(service: ServiceProcess) -> list[Connection]:
    """A request line that never ends."""
    return [await _flood(service, b"GET /health/live?", b"a" * 65_536)]


async def _endless_body(service: ServiceProcess) -> list[Connection]:
    """Chunked bodies that never end, and a declared length above the limit."""
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    lines = ("Transfer-Encoding: chunked", "Content-Type: application/json")
    connections = [await _flood(service, _signed(lines), chunk) for _ in range(3)]
    declared = ("Content-Length: 9999999999", "Content-Type: application/json")
    connections.append(await _flood(service, _signed(declared), b"{" * 65_536))
    return connections


async def _endless_framing(service: ServiceProcess) -> list[Connection]:
    """Trailers and a chunk extension that never end, after a valid body."""
    head = _signed(("Transfer-Encoding: chunked", "Content-Type: application/json"))
    begins = [b"2\r\n{}\r\n0\r\nX: ", b"2\r\n{}\r\n0\r\n", b"2\r\n{}\r\n2;a="]
    agains = [b"a" * 65_536, b"X: a\r\n" * 10_000, b"a" * 65_536]
    return [
        await _flood(service, head + begin, again)
        for begin, again in zip(begins, agains, strict=True)
    ]


async def _upgraded(service: ServiceProcess) -> list[Connection]:
    """Upgrade requests whose bodies would be posts if they were parsed as requests."""
    hidden = _signed(("Content-Length: 0",))
    lines = ("Connection: Upgrade", "Upgrade: h", f"Content-Length: {len(hidden)}")
    return [await _connect(service, _signed(lines) + hidden) for _ in range(50)]


async def _slow_body(service: ServiceProcess) -> list[Connection]:
    """A hundred bodies that stop after one byte."""
    lines = ("Content-Length: 1000", "Content-Type: application/json")
    return [await _connect(service, _signed(lines) + b"{") for _ in range(100)]


async def _bad_chunking(service: ServiceProcess) -> list[Connection]:
    """Chunk sizes that are not numbers, too large, negative, or contradict a length."""
    lines = ("Transfer-Encoding: chunked", "Content-Type: application/json")
    both = (*lines, "Content-Length: 5")
    bodies = [b"zz\r\n{}\r\n", b"-5\r\n{}\r\n", b"f" * 40 + b"\r\n{}", b"5\r\n{}\r\n0\r\n\r\n"]
    connections = [await _connect(service, _signed(lines) + body) for body in bodies * 5]
    connections += [await _connect(service, _signed(both) + b"2\r\n{}\r\n0\r\n\r\n")]
    return connections


async def _not_http(service: ServiceProcess) -> list[Connection]:
    """TLS, another protocol, binary noise, an endless request line."""
    noise = [
        b"\x16\x03\x01\x02\x00\x01",
        b"PING\r\n",
        bytes(range(256)) * 100,
        b"GET /" + b"a" * 2**20,
    ]
    return [await _connect(service, data) for data in noise * 10]


async def _abandoned_streams(service: ServiceProcess) -> list[Connection]:
    """Two hundred streams that are requested and never read."""
    target = f"/v1/projects/p/chat/stream?from_seq=0&token={token('u')}"
    head = _head("Accept: text/event-stream", target=target, method="GET")
    return [await _connect(service, head) for _ in range(200)]


async def _pipelined(service: ServiceProcess) -> list[Connection]:
    """Endless requests on one connection; the responses are never read."""
    return [await _flood(service, b"", _head(target="/health/live", method="GET") * 1500)]


@contextlib.asynccontextmanager
async def _attacked(service: ServiceProcess, attack: Attack) -> AsyncIterator[None]:
    connections = await attack(service)
    try:
        yield
    finally:
        for _, writer in connections:
            writer.transport.abort()


@pytest.mark.parametrize(
    "attack",
    [
        _silent, _half_a_head, _endless_header, _many_headers, _endless_target, _endless_body,
        _endless_framing, _upgraded, _slow_body, _bad_chunking, _not_http, _abandoned_streams,
        _pipelined,
    ],
)  # fmt: skip
async def test_others_are_served_and_the_connections_are_closed(
    attack: Attack, start_service: StartService
) -> None:
    """Other callers are served, memory stays bounded, and the connections are closed."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 4096:
        pytest.skip("too few open files are allowed here")
    service = await start_service()
    async with Api(service.url, "u") as api:
        await api.create_project("p")
        await api.post("p", "warm")
        before, size = service.client_connections(), service.resident_bytes()
        async with (
            SseClient("a", [service.url], "p", token("u"), from_seq=None) as client,
            _attacked(service, attack),
        ):
            await client.wait_live()
            for number in range(_POSTS):
                await api.post("p", f"text {number}")
            await client.wait_seq(_POSTS + 1)
            assert client.reconnects == 0
            growth = service.peak_resident_bytes() - size
            assert growth < _ALLOWED_GROWTH_BYTES, f"{growth // 2**20} MiB more memory"
        await wait_until(
            lambda: service.client_connections() <= before, what="connections as before"
        )
        assert len(await api.log("p")) == _POSTS + 1, "a hostile request was taken for a post"
    assert await service.terminate() == 0
    assert "Traceback" not in service.log_path.read_text()
