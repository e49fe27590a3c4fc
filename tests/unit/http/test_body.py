"""Reading a whole body within bounds of size and time: `service/http/body.py`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from litestar import Request

from service.http import body
from service.http.api_errors import ApiError
from service.http.body import is_json, read_body, read_framework_body
from service.http.server_connection import TRANSPORT_EXTENSION

Read = Callable[[Any, Any], Awaitable[bytes]]


async def _read_by_framework(scope: Any, receive: Any) -> bytes:
    return await read_framework_body(Request(scope, receive))


both = pytest.mark.parametrize("read", [read_body, _read_by_framework])


class _Route:
    """What Litestar asks of a route for the size of its bodies."""

    def resolve_request_max_body_size(self) -> int:
        return 10


class _Connection:
    """The server's own connection, whose request has been received whole."""

    def has_body_of(self, scope: object) -> bool:
        return True


def _scope(*headers: tuple[bytes, bytes], received: bool = False) -> Any:
    extensions = {TRANSPORT_EXTENSION: _Connection()} if received else {}
    return {
        "type": "http", "headers": list(headers), "extensions": extensions, "state": {},
        "route_handler": _Route(),
    }  # fmt: skip


def _receive(*pieces: bytes, ends: bool = True) -> Any:
    left = list(pieces)

    async def receive() -> Any:
        if not left:
            await asyncio.get_running_loop().create_future()
        piece = left.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(left) or not ends}

    return receive


@both
async def test_a_body_in_pieces_is_joined(read: Read) -> None:
    """Both readers return the whole body."""
    assert await read(_scope(), _receive(b"abc", b"", b"de")) == b"abcde"


@both
async def test_a_body_that_does_not_arrive_in_time_is_408(
    read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    """docs/protocol.md §4: 408 after 20 s."""
    monkeypatch.setattr(body, "BODY_TIMEOUT_S", 0.0)
    with pytest.raises(ApiError) as caught:
        await read(_scope(), _receive(b"abc", ends=False))
    assert (caught.value.status, caught.value.headers()) == (408, {"Connection": "close"})


@both
async def test_a_received_body_is_read_without_a_timer(
    read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nearly every body: a timer would cost as much as the read."""
    monkeypatch.delattr(asyncio, "timeout")
    assert await read(_scope(received=True), _receive(b"abc")) == b"abc"


@pytest.mark.parametrize("announced", [True, False])
async def test_a_body_above_the_limit_is_413_before_it_is_read_whole(announced: bool) -> None:
    """By its Content-Length nothing is read; without one the first piece too many ends the read."""
    headers = [(b"content-length", b"11")] if announced else []
    with pytest.raises(ApiError) as caught:
        await read_body(_scope(*headers), _receive(b"x" * 11, ends=False), limit_bytes=10)
    assert caught.value.status == 413


async def test_a_client_that_leaves_within_its_body_is_400() -> None:
    """Nobody reads that response."""

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    with pytest.raises(ApiError) as caught:
        await read_body(_scope(), receive)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("types", "expected"),
    [
        ([b"application/json"], True),
        ([b"Application/JSON; charset=utf-8"], True),
        ([b"text/plain"], False),
        ([b"application/json", b"text/plain"], False),
        ([], False),
    ],
)
def test_only_one_content_type_that_says_json_is_json(types: list[bytes], expected: bool) -> None:
    """docs/protocol.md §4: any other body is 415."""
    assert is_json(_scope(*((b"content-type", value) for value in types))) is expected
