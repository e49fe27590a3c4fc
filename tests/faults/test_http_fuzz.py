"""The direct path of a post and the router give the same responses to the same bytes.

Two services, each with its own database, get every exchange in the same pieces. One appends posts
directly (`service/routes/direct_append.py`), the other routes them. Status, headers, bodies and the
logs must be equal. SEQSTREAM_ALL_FAULTS=1 runs many more examples, others each time.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from typing import Any, NamedTuple, cast

import httptools
import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from uvicorn.config import Config
from uvicorn.lifespan.on import LifespanOn
from uvicorn.server import ServerState

from service.app import create_app
from service.http.protocol import StreamingProtocol
from service.http.server import config
from service.operate.embedded import PostgresServer, RedisServer
from service.routes.direct_append import DirectAppend
from service.settings import load
from tests.support.memory_transport import MemoryTransport
from tests.support.signing import HMAC_SECRET, TOKEN_SECRET, signed_headers, token
from tests.support.waiting import wait_until

_LONG = bool(os.environ.get("SEQSTREAM_ALL_FAULTS"))
pytestmark = [
    pytest.mark.timeout(1800 if _LONG else 120, method="signal"),
    # Hypothesis warns when a failing example has a body of 1 MiB.
    pytest.mark.filterwarnings("ignore:Generating overly large repr"),
]

_fuzzing = settings(
    max_examples=10_000 if _LONG else 300,
    derandomize=not _LONG,
    print_blob=True,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)
_PROJECTS = ("p1", "p2")
_USERS = tuple(f"u{number}" for number in range(8))
# After that many turns of the loop, every complete request is answered.
_TURNS = 30
_REPEATED = frozenset({b"date"})
_MADE_UP = ("messageId", "timestamp", "requestId", "createdAt")


class _Answer(NamedTuple):
    status: int
    headers: list[tuple[bytes, bytes]]
    body: object


class _Service:
    """An application with its own database, served over an in-memory transport."""

    def __init__(self, app: Any, direct: DirectAppend | None, served: Config) -> None:
        self.routed_directly = direct is not None
        self._direct = direct
        self._served = served
        self._state = ServerState()
        self._app = app

    async def exchange(
        self, pieces: Sequence[bytes], *, at_once: bool
    ) -> tuple[list[_Answer], bool]:
        """Send pieces on a new connection; return the answers, and whether the server closed it."""
        protocol = StreamingProtocol(
            self._direct, config=self._served, server_state=self._state, app_state={}
        )
        transport = MemoryTransport(protocol)
        for piece in pieces:
            transport.feed(piece)
            if not at_once:
                await self._quiet(protocol, transport)
        await self._quiet(protocol, transport)
        has_ended = transport.is_closing() or protocol.deadline.phase == "linger"
        transport.close()
        await wait_until(lambda: not self._state.tasks, what="the end of the requests")
        return _answers(bytes(transport.written)), has_ended

    async def _quiet(self, protocol: StreamingProtocol, transport: MemoryTransport) -> None:
        """Wait until every complete request is answered."""
        turns = 0
        while turns < _TURNS:
            is_waiting = protocol.deadline.phase != "answer" and transport.is_read_out
            turns = turns + 1 if is_waiting or transport.is_closing() else 0
            await asyncio.sleep(0)


def _answers(data: bytes) -> list[_Answer]:
    """Parse responses and drop the values that differ between two services."""
    answers: list[_Answer] = []

    class Reader:
        def __init__(self) -> None:
            self.headers: list[tuple[bytes, bytes]] = []
            self.body = b""

        def on_header(self, name: bytes, value: bytes) -> None:
            self.headers.append((name.lower(), value))

        def on_body(self, body: bytes) -> None:
            self.body += body

        def on_message_complete(self) -> None:
            status = parser.get_status_code()
            answers.append(_Answer(status, _compared(self.headers), _normal(self.body)))
            self.headers, self.body = [], b""

    parser = httptools.HttpResponseParser(Reader())
    parser.set_dangerous_leniencies(lenient_data_after_close=True)
    parser.feed_data(data)
    return answers


def _compared(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    made_up = [
        (name, b"made up" if name == b"x-request-id" and len(value) == 32 else value)
        for name, value in headers
        if name not in _REPEATED
    ]
    return sorted(made_up)


def _normal(body: bytes) -> object:
    try:
        decoded = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return body
    return _without_made_up(decoded)


def _without_made_up(value: object) -> object:
    if isinstance(value, dict):
        return {
            name: _without_made_up(each) for name, each in value.items() if name not in _MADE_UP
        }
    if isinstance(value, list):
        return [_without_made_up(each) for each in value]
    return value


class _Pair(NamedTuple):
    direct: _Service
    routed: _Service


@pytest.fixture(scope="module")
async def pair(
    postgres: PostgresServer, template_database: str, redis_server: RedisServer
) -> AsyncIterator[_Pair]:
    """A service with the direct path, and one without."""
    async with AsyncExitStack() as stack:
        services = []
        for number, name in enumerate(("fuzz_direct", "fuzz_routed")):
            environment = {
                "DATABASE_URL": postgres.create_database(name, template=template_database),
                "REDIS_URL": f"{redis_server.url.rpartition('/')[0]}/{number}",
                "SEQSTREAM_HMAC_SECRETS": HMAC_SECRET,
                "SEQSTREAM_TOKEN_SECRETS": TOKEN_SECRET,
                "SEQSTREAM_CORS_ORIGINS": "https://app.example",
            }
            made = create_app(load(environment), version="fuzzed")
            direct = made.direct if number == 0 else None
            served = config(made.app, host="127.0.0.1", port=0, fast_path=direct)
            served.load()
            lifespan = LifespanOn(served)
            await lifespan.startup()
            stack.push_async_callback(lifespan.shutdown)
            service = _Service(made.app, direct, served)
            for project in _PROJECTS:
                body = msgspec.json.encode({"id": project, "name": project})
                await _set_up(service, "POST", "/v1/projects", body)
                for user in _USERS:
                    await _set_up(service, "PUT", f"/v1/projects/{project}/members/{user}", b"")
            services.append(service)
        yield _Pair(*services)


async def _set_up(service: _Service, method: str, path: str, body: bytes) -> None:
    lines = [f"{n}: {v}" for n, v in signed_headers(method, path, "owner", body).items()]
    lines += ["Host: x", "Content-Type: application/json", f"Content-Length: {len(body)}"]
    data = "\r\n".join([f"{method} {path} HTTP/1.1", *lines, "", ""]).encode() + body
    ((answer,), _) = await service.exchange([data], at_once=True)
    assert answer.status in (201, 204), answer


# Strategies for requests. Most values are valid, so that the later checks are reached too.


def _mostly(usual: st.SearchStrategy[Any], *others: st.SearchStrategy[Any]) -> Any:
    return st.integers(0, 5).flatmap(lambda n: st.one_of(*others) if n == 0 else usual)


_targets = _mostly(
    st.sampled_from([f"/v1/projects/{project}/chat/messages" for project in _PROJECTS]),
    st.sampled_from([
        "/v1/projects/p1/chat/messages/", "/v1/projects/p1/chat/messages?x=1",
        "/v1/projects/p1/chat/messages?", "/v1/projects/other/chat/messages",
        "/v1/projects/b.d/chat/messages", "/v1/projects/b%20d/chat/messages",
        "/v1/projects/p%31/chat/messages", "/v1/projects/p1/chat/%6Dessages",
        "/v1/projects//p1/chat/messages", "/v1/projects/p1/chat/messages//",
        "/v1/projects/p1%2Fchat/messages", "/v1/projects/p1/chat/../chat/messages",
        "/v1/projects/p1/chat/messages#x", "http://x/v1/projects/p1/chat/messages",
        "http://y/v1/projects/p1/chat/messages", "/v1/projects/%C3%A9/chat/messages",
        "/v1/projects/" + "p" * 65 + "/chat/messages", "/v1/projects//chat/messages",
        "/v1/projects/p1/chat/messages;x", "/v1/projects/p1/chat/messages/batch",
        "*", "/v1/projects/-/chat/messages", "/v1/projects/p1/chat/typing",
    ]),
)  # fmt: skip

_texts = st.sampled_from(["hello", "", "é\u2028", "x" * 65_536, "x" * 65_537, "\0", "\ud800"])
_bodies = _mostly(
    st.fixed_dictionaries(
        {"message": st.just("hello")},
        optional={"client_msg_id": st.sampled_from(["c1", "c2", "c3", "c4"])},
    ),
    st.fixed_dictionaries(
        {"message": _texts},
        optional={
            "client_msg_id": st.sampled_from(["c1", "", "x" * 128, "x" * 129, "\n", 5, None]),
            "parentId": st.sampled_from(["m", "", "x" * 129, 1, None]),
            "metadata": st.sampled_from([{}, {"a": [1]}, [], None, {"a": "x" * 100_000}]),
            "userId": st.sampled_from(["u0", "x"]),
            "unknown": st.just(1),
        },
    ),
    st.sampled_from([
        b"", b"{", b"[]", b"null", b"{}", b'{"message":5}', b"\xff", b'{"message":"\xff"}',
        b"[" * 5000, b'{"message":"a"} x', b'{"message":"a","message":"b"}', b" ",
        b'{"message":"' + b"x" * 1_100_000 + b'"}', b'{"message":"a","x":1e999}',
    ]),
)  # fmt: skip
_types = _mostly(
    st.just(["Content-Type: application/json"]),
    st.sampled_from([
        [], ["Content-Type: text/plain"], ["Content-Type: application/json; charset=utf-8"],
        ["Content-Type: APPLICATION/JSON"], ["Content-Type:"], ["content-type: application/jsonx"],
        ["Content-Type: application/json", "Content-Type: application/json"],
        ["Content-Type: application/x-www-form-urlencoded"],
    ]),
)  # fmt: skip
_extras = _mostly(
    st.just([]),
    st.lists(
        st.sampled_from([
            "X-Request-Id: mine", "X-Request-Id: not good", "X-Request-Id: other",
            "Connection: close", "Connection: keep-alive", "Connection: Upgrade",
            "Upgrade: websocket", "Expect: 100-continue", "Expect: magic",
            "Origin: https://app.example", "Origin: https://evil.example", "Accept: text/html",
            "Host: x", "Cookie: a=b", "Content-Length: 3", "Transfer-Encoding: chunked",
            "Transfer-Encoding: gzip", "X-Seqstream-User: u1", "Authorization: Basic eA==",
            "Content-Encoding: gzip", "Bad Name: x", "X-Long: " + "y" * 70_000, "If-None-Match: *",
        ]),
        min_size=1, max_size=3,
    ),
)  # fmt: skip
_methods = _mostly(
    st.just("POST"), st.sampled_from(["GET", "PUT", "OPTIONS", "post", "CONNECT", "PATCH"])
)
_versions = _mostly(st.just("HTTP/1.1"), st.sampled_from(["HTTP/1.0", "HTTP/2.0", "HTTP/1.2", ""]))
_framings = st.sampled_from(
    ["length"] * 6 + ["chunked"] * 3 + ["trailers", "short", "long", "none"]
)
_OTHER_SECRET = "another-secret-of-32-characters-or-more"
_TRAILERS = b"0\r\nX-Seqstream-User: u2\r\nA: b\r\n\r\n"
_SIGNED = ("good", "other secret", "other body", "old", "no user", "bad user", "twice", "half")
_TOKENED = ("write", "read", "worker", "read write", "expired", "elsewhere", "here", "nonsense")
_credentials = _mostly(
    st.tuples(st.just("signed"), st.just("good"), st.sampled_from(_USERS))
    | st.tuples(st.just("bearer"), st.just("write"), st.sampled_from(_USERS)),
    st.tuples(st.just("signed"), st.sampled_from(_SIGNED), st.sampled_from([*_USERS, "stranger"])),
    st.tuples(
        st.sampled_from(["bearer", "cookie", "query", "both", "cookies"]),
        st.sampled_from(_TOKENED),
        st.sampled_from([*_USERS, "stranger"]),
    ),
    st.just(("none", "", "")),
)


def _token(kind: str, user: str) -> str:
    match kind:
        case "expired":
            return token(user, ttl_s=-60, scope="write")
        case "elsewhere":
            return token(user, scope="write", projects=["p9"])
        case "here":
            return token(user, scope="write", projects=["p1"])
        case "nonsense":
            return "nonsense"
        case _:
            return token(user, scope=kind)


def _credential_lines(
    credentials: tuple[str, str, str], method: str, target: str, body: bytes
) -> list[str]:
    way, kind, user = credentials
    if way == "none":
        return []
    if way == "signed":
        secret = (
            "another-secret-of-32-characters-or-more" if kind == "other secret" else HMAC_SECRET
        )
        signed_user = {"no user": "", "bad user": "a b"}.get(kind, user)
        sent = signed_headers(
            method,
            target,
            signed_user,
            body + b" " if kind == "other body" else body,
            secret=secret,
            timestamp_s=1_000_000 if kind == "old" else None,
        )
        lines = [f"{name}: {value}" for name, value in sent.items()]
        if kind == "half":
            return lines[:-1]
        return [*lines, lines[0]] if kind == "twice" else lines
    made = _token(kind, user)
    return {
        "bearer": [f"Authorization: Bearer {made}"],
        "cookie": [f"Cookie: seqstream_token={made}"],
        "cookies": [f"Cookie: seqstream_token={made}; seqstream_token={made}"],
        "both": [f"Authorization: Bearer {made}", f"Cookie: seqstream_token={made}"],
        "query": [],
    }[way]


@st.composite
def _requests(draw: st.DrawFn) -> bytes:
    method, target, version = draw(_methods), draw(_targets), draw(_versions)
    drawn: Any = draw(_bodies)
    # Encoded by `json`: msgspec refuses a lone surrogate, which clients can send as an escape.
    body = drawn if isinstance(drawn, bytes) else json.dumps(drawn).encode()
    lines = [*draw(_mostly(st.just(["Host: x"]), st.sampled_from([[], ["Host: y"]])))]
    lines += _credential_lines(draw(_credentials), method, target, body)
    lines += draw(_types)
    framing = draw(_framings)
    if framing in ("chunked", "trailers"):
        lines.append("Transfer-Encoding: chunked")
        size = draw(st.sampled_from([1, 7, 1000, 1_000_000]))
        if size == 1 and len(body) > 200:
            size = 1000
        pieces = [body[at : at + size] for at in range(0, len(body), size)]
        end = (
            b"0\r\nX-Seqstream-User: u2\r\nA: b\r\n\r\n" if framing == "trailers" else b"0\r\n\r\n"
        )
        body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + end
    elif framing != "none":
        length = len(body) + {"short": -1, "long": 1}.get(framing, 0)
        lines.append(f"Content-Length: {max(length, 0)}")
    lines += draw(_extras)
    order = draw(st.booleans())
    start = f"{method} {target} {version}".rstrip()
    return "\r\n".join([start, *(lines if order else reversed(lines)), "", ""]).encode() + body


@st.composite
def _exchanges(draw: st.DrawFn) -> tuple[list[bytes], bool]:
    data = b"".join(draw(st.lists(_requests(), min_size=1, max_size=4)))
    if draw(st.integers(0, 9)) == 0:
        data = data[: draw(st.integers(0, len(data)))]
    places = sorted(draw(st.lists(st.integers(0, len(data)), max_size=4)))
    pieces = [
        data[start:end] for start, end in zip([0, *places], [*places, len(data)], strict=True)
    ]
    return [piece for piece in pieces if piece], draw(st.booleans())


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 5000, b'{"message":5}', b'{"message":5} x', b"[1", b'{"message":["\xff"]}', b"",
        b'{"message":"a","x":1e999}', b'{"message":"a","x":"\xff"}',
        pytest.param(b'{"message":"%b"}' % (b"x" * 2**21), id="two MiB"),
    ],
)  # fmt: skip
async def test_both_paths_report_the_same_error_of_a_body(pair: _Pair, body: bytes) -> None:
    """§4: 400 reports invalid JSON first, then a wrong field."""
    path = "/v1/projects/p1/chat/messages"
    lines = [f"{n}: {v}" for n, v in signed_headers("POST", path, "owner", body).items()]
    lines += ["Host: x", "Content-Type: application/json", f"Content-Length: {len(body)}"]
    data = "\r\n".join([f"POST {path} HTTP/1.1", *lines, "", ""]).encode() + body
    answers = [await service.exchange([data], at_once=True) for service in pair]
    assert answers[0] == answers[1]


async def test_a_complete_empty_body_gets_no_100_continue(pair: _Pair) -> None:
    """RFC 9110 §10.1.1: no `100 Continue` when the whole body was received."""
    lines = ["POST /v1/projects/p1/chat/messages HTTP/1.1", "Host: x", "Expect: 100-continue"]
    path = "/v1/projects/p1/chat/messages"
    # Signed for another body: the signature is compared after the body was received.
    lines += [f"{n}: {v}" for n, v in signed_headers("POST", path, "owner", b"x").items()]
    data = "\r\n".join([*lines, "Transfer-Encoding: chunked", "", ""]).encode() + b"0\r\n\r\n"
    answers = [await service.exchange([data], at_once=True) for service in pair]
    assert answers[0] == answers[1]
    assert [answer.status for answer in answers[0][0]] == [401]


@_fuzzing
@given(exchange=_exchanges())
async def test_both_paths_answer_alike(pair: _Pair, exchange: tuple[list[bytes], bool]) -> None:
    """docs/protocol.md §4: callers cannot tell which path serves a post."""
    pieces, at_once = exchange
    directly = await pair.direct.exchange(pieces, at_once=at_once)
    routed = await pair.routed.exchange(pieces, at_once=at_once)
    assert directly == routed


async def test_both_paths_append_the_same_log(pair: _Pair) -> None:
    """G1, G5: both services have the same messages in the same order."""
    for project in _PROJECTS:
        path = f"/v1/projects/{project}/chat/messages?limit=500&order=desc"
        lines = [f"{n}: {v}" for n, v in signed_headers("GET", path, "owner").items()]
        data = "\r\n".join([f"GET {path} HTTP/1.1", "Host: x", *lines, "", ""]).encode()
        answers = [await service.exchange([data], at_once=True) for service in pair]
        assert answers[0] == answers[1]
        assert cast("Any", answers[0][0][0].body)["headSeq"] > 0
