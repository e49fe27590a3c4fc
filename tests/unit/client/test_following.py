"""Following over an exchange of the test's: what is handed on, and when it gives up."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Collection, Mapping

import httpx
import msgspec
import pytest

from service.client.client_backoff import ClientBackoff
from service.client.client_errors import StreamEnded, TokenFailed
from service.client.client_events import Event
from service.client.exchange import Exchange, Interrupted
from service.client.following import Following, FollowObserver, FollowOptions, wanted
from service.client.position import Position
from service.client.token_source import TokenSource


def _message(seq: int) -> dict[str, object]:
    return {
        "seq": seq, "messageId": f"m{seq}", "projectId": "p", "userId": "u",
        "timestamp": "t", "content": {"text": f"t{seq}"},
    }  # fmt: skip


def _block(name: str, data: object, own_id: int | None = None) -> bytes:
    line_of_id = b"" if own_id is None else b"id: %d\n" % own_id
    return b"%sevent: %s\ndata: %s\n\n" % (line_of_id, name.encode(), msgspec.json.encode(data))


def _new(seq: int) -> bytes:
    return _block("message.new", _message(seq), seq)


class _Exchange(Exchange):
    """Answers from lists: `streams` one connection after the other, `pages` of the history."""

    def __init__(
        self,
        streams: list[bytes | Exception],
        pages: Callable[[int, int], tuple[list[int], bool]] = lambda after, before: ([], False),
    ) -> None:
        super().__init__(httpx.AsyncClient(verify=False), "http://h", TokenSource("t"))
        self.streams = streams
        self.asked: list[Mapping[str, str]] = []
        self._pages = pages

    async def call(
        self, method: str, path: str, *, timeout_s: float,
        params: Mapping[str, str] | None = None, body: bytes | None = None,
    ) -> bytes:  # fmt: skip
        assert params is not None
        seqs, has_more = self._pages(int(params["after_seq"]), int(params["before_seq"]))
        messages = [_message(seq) for seq in seqs]
        return msgspec.json.encode({"messages": messages, "headSeq": 99, "hasMore": has_more})

    @contextlib.asynccontextmanager
    async def stream(
        self, path: str, *, silence_s: float, params: Mapping[str, str],
        headers: Mapping[str, str],
    ) -> AsyncIterator[AsyncIterator[bytes]]:  # fmt: skip
        self.asked.append({**params, **headers})
        if not self.streams:
            raise _Over
        answer = self.streams.pop(0)
        if isinstance(answer, Exception):
            raise answer
        yield _pieces(answer)


class _Over(Exception):
    """The test's lists are used up."""


async def _pieces(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def _follow(
    exchange: _Exchange, *, after: int | None = 0, events: Collection[str] | None = None
) -> list[str]:
    """Return what is handed on until the lists are used up: names, of messages the seqs."""
    following = Following(
        exchange,
        "/v1/projects/p",
        Position(after=after, tail=None),
        FollowOptions(events=wanted(events)),
        FollowObserver(),
        ClientBackoff(jitter=lambda low, high: 0.0),
    )
    taken: list[Event] = []
    with contextlib.suppress(_Over):
        async for event in following.events():
            taken.append(event)  # noqa: PERF401 - what came before an error counts
    return [str(event.seq or event.name) for event in taken]


async def test_the_missing_range_is_fetched_in_pages() -> None:
    """Each after the last message of the one before; `has_more` says whether to go on."""
    asked: list[int] = []

    def pages(after: int, before: int) -> tuple[list[int], bool]:
        asked.append(after)
        return list(range(after + 1, min(after + 3, before))), after + 3 < before

    assert await _follow(_Exchange([_new(1) + _new(7)], pages)) == [
        "1",
        "2",
        "3",
        "4",
        "5",
        "6",
        "7",
    ]
    assert asked == [1, 3, 5]


async def test_a_history_that_never_ends_is_not_asked_for_ever() -> None:
    """A page without a message, which says that there are more: it is taken as the last."""
    exchange = _Exchange([_new(1) + _new(7)], lambda after, before: ([], True))
    assert await _follow(exchange) == ["1", "7"]


async def test_what_was_fetched_is_not_fetched_again_after_a_cut() -> None:
    """The cursor follows the fetched messages."""
    calls = 0

    def pages(after: int, before: int) -> tuple[list[int], bool]:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise Interrupted("cut")
        return ([2, 3] if after == 1 else list(range(after + 1, before))), after == 1

    exchange = _Exchange([_new(1) + _new(7), _new(7)], pages)
    assert await _follow(exchange) == list("1234567")
    assert exchange.asked[1]["Last-Event-ID"] == "3"


async def test_only_the_wanted_events_are_handed_on() -> None:
    """A replayed message is wanted where a new one is."""
    replayed = _block("message.replay", _message(1), 1)
    stream = replayed + _block("typing.start", {}) + _block("heartbeat", {}) + _new(2)
    assert await _follow(_Exchange([stream])) == ["1", "typing.start", "2"]
    assert await _follow(_Exchange([stream]), events=["message.new"]) == ["1", "2"]
    assert await _follow(_Exchange([stream]), events=["heartbeat"]) == ["heartbeat"]
    assert await _follow(_Exchange([stream]), events=()) == []


async def test_nothing_is_read_after_the_services_last_word() -> None:
    """`stream.closing` ends a connection; the next has the cursor."""
    closing = _block("stream.closing", {"reason": "max_age", "reconnect": True})
    exchange = _Exchange([_new(1) + closing + _new(2), _new(2)])
    assert await _follow(exchange) == ["1", "stream.closing", "2"]
    assert exchange.asked[1]["Last-Event-ID"] == "1"


async def test_a_stream_that_must_not_be_opened_again_ends() -> None:
    """Without a callable that renews the token."""
    closing = _block("stream.closing", {"reason": "access_revoked", "reconnect": False})
    with pytest.raises(StreamEnded) as raised:
        await _follow(_Exchange([closing, _new(1)]))
    assert raised.value.reason == "access_revoked"


async def test_a_token_that_cannot_be_had_is_waited_for_some_times() -> None:
    """A moment without the token's issuer ends nothing; a callable that is broken does."""
    passing: list[bytes | Exception] = [TokenFailed("no")] * 4
    assert await _follow(_Exchange([*passing, _new(1), *passing, _new(2)])) == ["1", "2"]
    with pytest.raises(TokenFailed):
        await _follow(_Exchange([*passing, TokenFailed("no"), _new(1)]))


@pytest.mark.parametrize(("silence_s", "heartbeat_s"), [(45, 15), (1, 2), (600, 60)])
def test_heartbeats_are_asked_for_thrice_as_often(silence_s: float, heartbeat_s: int) -> None:
    """Within what the service takes."""
    assert FollowOptions(silence_s=silence_s).heartbeat_s == heartbeat_s
