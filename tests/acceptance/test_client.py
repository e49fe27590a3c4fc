"""The Python client against real service processes: sends, history, builds, errors, tokens."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from itertools import count

import httpx
import pytest

from service.client import (
    AccessDenied,
    BadRequest,
    Client,
    ClientClosed,
    ClientError,
    Conflict,
    Event,
    Message,
    ProtocolViolation,
    TooLarge,
    Unauthenticated,
    Unavailable,
)
from tests.acceptance.conftest import NewProject, Project, Services
from tests.support.signing import token
from tests.support.tcp_proxy import TcpProxy

_WRITE = "read write"


def _token(user: str = "owner", *, ttl_s: float = 3600.0) -> str:
    return token(user, scope=_WRITE, ttl_s=ttl_s)


@pytest.fixture
async def client(services: Services) -> AsyncIterator[Client]:
    """The owner's client of process `a`."""
    async with Client(services.a.url, _token()) as made:
        yield made


async def _first(client: Client, project_id: str, number: int, after: int = 0) -> list[Message]:
    """Return the first messages that following yields."""
    messages: list[Message] = []
    async with (
        asyncio.timeout(20),
        contextlib.aclosing(client.follow(project_id, after=after, events="message.new")) as events,
    ):
        async for event in events:
            assert isinstance(event, Message)
            messages.append(event)
            if len(messages) == number:
                break
    return messages


async def _exhaust(events: AsyncIterator[Event]) -> None:
    async with asyncio.timeout(20):
        async for _ in events:
            pass


async def test_a_message_is_sent_and_followed(client: Client, project: Project) -> None:
    """A receipt with the seq; a typed event with the same."""
    receipt = await client.send(project.id, "hello", client_msg_id="c1", metadata={"k": [1]})
    assert (receipt.seq, receipt.duplicate, receipt.client_msg_id) == (1, False, "c1")
    (message,) = await _first(client, project.id, 1)
    assert (message.seq, message.text, message.client_msg_id) == (1, "hello", "c1")
    assert (message.message_id, message.user_id) == (receipt.message_id, "owner")
    assert message.metadata == {"build_id": None, "response_data": None, "k": [1]}
    assert message.data["content"]["text"] == "hello"


async def test_an_id_is_made_for_a_message_without_one(client: Client, project: Project) -> None:
    """So that every send may be retried."""
    first = await client.send(project.id, "x")
    second = await client.send(project.id, "x")
    assert first.client_msg_id is not None
    assert first.client_msg_id != second.client_msg_id
    assert (first.seq, second.seq) == (1, 2)


async def test_the_history_is_read_in_pages(client: Client, project: Project) -> None:
    """§4: exclusive bounds, a page, and where to go on."""
    await project.fill(5)
    page = await client.history(project.id, after=1, limit=2)
    assert [message.seq for message in page.messages] == [2, 3]
    assert (page.head_seq, page.has_more, page.next_after_seq) == (5, True, 3)
    page = await client.history(project.id, before=3, limit=1, order="desc")
    assert [message.seq for message in page.messages] == [2]


async def test_builds_are_listed(client: Client, project: Project) -> None:
    """§4: typed, newest first."""
    body = {"projectId": project.id, "message": "make it", "mode": "build"}
    asked = (await project.api.request("POST", "/v1/chat/unified", body)).json()
    (build,) = await client.builds(project.id)
    assert (build.build_id, build.status) == (asked["buildId"], "queued")
    assert await client.builds(project.id, status="failed") == ()


async def test_errors_are_typed(services: Services, project: Project, client: Client) -> None:
    """400, 401, 403 and 409 have classes of their own, with the service's code."""
    with pytest.raises(BadRequest) as bad:
        await client.send(project.id, "")
    assert (bad.value.code, bad.value.details) != ("VALIDATION_FAILED", None)
    await client.send(project.id, "one", client_msg_id="same")
    with pytest.raises(Conflict) as conflict:
        await client.send(project.id, "two", client_msg_id="same")
    assert conflict.value.code == "IDEMPOTENCY_MISMATCH"
    async with Client(services.a.url, _token("stranger")) as stranger:
        with pytest.raises(AccessDenied) as denied:
            await stranger.send(project.id, "x")
        assert denied.value.request_id
    async with Client(services.a.url, "not-a-token") as unknown:
        with pytest.raises(Unauthenticated):
            await unknown.history(project.id)


@pytest.mark.parametrize("project_id", ["", "..", "a/b", "a?b", "ä"])
async def test_an_id_that_is_none_is_not_sent(client: Client, project_id: str) -> None:
    """It would be another address."""
    with pytest.raises(BadRequest):
        await client.send(project_id, "x")


async def test_following_raises_what_no_reconnect_mends(
    services: Services, project: Project
) -> None:
    """A stranger's 403, an unknown token's 401."""
    async with Client(services.a.url, _token("stranger")) as stranger:
        with pytest.raises(AccessDenied):
            await anext(stranger.follow(project.id))
    async with Client(services.a.url, "not-a-token") as unknown:
        with pytest.raises(Unauthenticated):
            await anext(unknown.follow(project.id))


async def test_a_closed_client_refuses(services: Services, project: Project) -> None:
    """Also what still follows; no exception of httpx comes out."""
    client = Client(services.a.url, _token())
    events = client.follow(project.id, after=0)
    assert (await anext(events)).name == "stream.open"
    await client.close()
    with pytest.raises(ClientClosed):
        await _exhaust(events)
    with pytest.raises(ClientClosed):
        await client.send(project.id, "x")


async def test_a_send_is_retried_with_its_id_when_the_answer_is_lost(
    services: Services, project: Project
) -> None:
    """G5: the message is stored once; the retry gets its receipt."""
    async with TcpProxy(services.a.port) as proxy:
        http = _CutAfterCommit(project, proxy)
        async with (
            httpx.AsyncClient(transport=http) as own,
            Client(f"http://127.0.0.1:{proxy.port}", _token(), http=own) as client,
        ):
            receipt = await client.send(project.id, "once")
        assert (http.attempts, receipt.seq, receipt.duplicate) == (2, 1, True)
    assert [row.text for row in await project.api.log(project.id)] == ["once"]


class _CutAfterCommit(httpx.AsyncBaseTransport):
    """Loses the first answer: the request arrives, and its connection is cut."""

    def __init__(self, project: Project, proxy: TcpProxy) -> None:
        self.attempts = 0
        self._inner = httpx.AsyncHTTPTransport()
        self._project = project
        self._proxy = proxy

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.attempts += 1
        response = await self._inner.handle_async_request(request)
        if self.attempts == 1:
            self._proxy.cut()
            await response.aclose()
            raise httpx.ReadError("cut")
        return response

    async def aclose(self) -> None:
        await self._inner.aclose()


async def test_no_answer_in_time_is_unavailable(services: Services, project: Project) -> None:
    """Whether it was stored is unknown: the error has the id to send it again with."""
    async with TcpProxy(services.a.port) as proxy:
        await proxy.refuse()
        async with Client(f"http://127.0.0.1:{proxy.port}", _token()) as client:
            with pytest.raises(Unavailable) as raised:
                await client.send(project.id, "x", client_msg_id="mine", timeout_s=0.5)
    assert raised.value.client_msg_id == "mine"
    assert raised.value.attempts >= 1


async def test_an_expired_token_is_renewed(services: Services, project: Project) -> None:
    """A callable is asked again when the service no longer takes the last token."""
    made = count(1)

    async def make() -> str:
        return _token(ttl_s=-10 if next(made) == 1 else 3600)

    async with Client(services.a.url, make) as client:
        assert (await client.send(project.id, "x")).seq == 1
    assert next(made) == 3


async def test_a_stream_goes_on_with_another_token(services: Services, project: Project) -> None:
    """`stream.closing` with `token_expired`: the next connection has a fresh token."""
    await project.fill(1)
    lifetimes: Iterator[float] = iter([2.0])

    def make() -> str:
        return _token(ttl_s=next(lifetimes, 3600.0))

    names: list[str] = []
    async with Client(services.a.url, make) as client, asyncio.timeout(30):
        async for event in client.follow(project.id, after=0):
            names.append(event.name)
            if event.name == "stream.closing":
                await project.fill(2)
            if isinstance(event, Message) and event.seq == 2:
                break
    assert names.count("stream.open") == 2
    assert names.count("message.replay") == 2


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:8000",
        "ftp://x",
        "http://",
        "http://user:secret@host",
        "http://h/?a=b",
        "http://h:99999",
        "http://[::1",
    ],
)
async def test_an_address_that_is_none_is_refused(url: str) -> None:
    """At once, and without the address's secrets in the text."""
    with pytest.raises(ValueError) as raised:
        Client(url, "t")
    assert "secret" not in str(raised.value)


_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (_HEAD + b"data: " + b"x" * 65_536, TooLarge),
        (_HEAD + b": never ends" * 1000, TooLarge),
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html>", ProtocolViolation),
        (
            b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n",
            ProtocolViolation,
        ),
        (_HEAD + b"event: message.new\ndata: {}\n\n", ProtocolViolation),
    ],
)
async def test_a_peer_that_is_no_such_service_is_a_violation(
    answer: bytes, error: type[ClientError]
) -> None:
    """A page of another server, or a block without end: bounded, and not tried again."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        with contextlib.suppress(OSError):
            writer.write(answer)
            while error is TooLarge:
                writer.write(b"x" * 65_536)
                await writer.drain()
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with Client(url, "t") as client, asyncio.timeout(20):
            with pytest.raises(error):
                await anext(client.follow("p", after=0))


async def test_a_rate_limited_send_waits_as_asked(
    services: Services, new_project: NewProject
) -> None:
    """429 with `Retry-After`: sent again, after that time."""
    answers = [b"429 Too Many Requests", b"503 Service Unavailable"]
    project = await new_project(services.a)
    asked: list[float] = []

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(time.monotonic())
        await reader.readuntil(b"\r\n\r\n")
        status = answers.pop(0) if answers else b"200 OK"
        wait = b"1" if status.startswith(b"429") else b"soon"
        body = b'{"seq":1,"messageId":"m","projectId":"p","timestamp":"t","duplicate":false}'
        writer.write(
            b"HTTP/1.1 " + status + b"\r\nRetry-After: " + wait + b"\r\nConnection: close\r\n"
            b"Content-Length: %d\r\n\r\n" % len(body) + body
        )
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with Client(url, "t") as client:
            assert (await client.send(project.id, "x")).seq == 1
    assert len(asked) == 3
    assert asked[1] - asked[0] >= 1
