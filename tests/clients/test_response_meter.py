"""Where a cut falls: in literal bytes of responses, fed whole and byte by byte."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.clients.requests_seen import RequestReader, read_head
from tests.clients.response_meter import Cut, ResponseMeter

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
OPEN = b"event: stream.open\nid: 0\nretry: 300\ndata: {}\n\n"
LIVE = b"event: stream.live\ndata: {}\n\n"
NEW = b"event: message.new\nid: 1\ndata: {}\n\n"


def _chunked(*chunks: bytes, end: bool = False) -> bytes:
    body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    return HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + body + (b"0\r\n\r\n" if end else b"")


def _cut_at(cut: Cut, pieces: Sequence[bytes]) -> int | None:
    """Return after how many bytes of all pieces the cut falls."""
    meter = ResponseMeter()
    meter.set_cut(cut)
    before = 0
    for piece in pieces:
        place = meter.feed(piece)
        if place is not None:
            return before + place
        before += len(piece)
    return None


def _bytewise(data: bytes) -> list[bytes]:
    return [data[place : place + 1] for place in range(len(data))]


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize(
    ("cut", "response", "kept"),
    [
        (Cut(head=True), _chunked(OPEN), HEAD + b"Transfer-Encoding: chunked\r\n\r\n"),
        (Cut(blocks=1), _chunked(OPEN, LIVE), _chunked(OPEN)),
        (Cut(blocks=2), _chunked(OPEN, LIVE, NEW), _chunked(OPEN, LIVE)),
        # Not within a chunk.
        (Cut(blocks=1), _chunked(OPEN + LIVE, NEW), _chunked(OPEN + LIVE)),
        # A block may stand in two chunks.
        (Cut(blocks=1), _chunked(OPEN[:9], OPEN[9:], NEW), _chunked(OPEN[:9], OPEN[9:])),
        (Cut(blocks=1), HEAD + b"\r\n" + OPEN + LIVE, HEAD + b"\r\n" + OPEN),
        (
            Cut(blocks=1),
            HEAD + b"\r\n" + (OPEN + LIVE).replace(b"\n", b"\r\n"),
            HEAD + b"\r\n" + OPEN.replace(b"\n", b"\r\n"),
        ),
        (Cut(body_bytes=5), HEAD + b"\r\n" + OPEN, HEAD + b"\r\n" + OPEN[:5]),
        (
            Cut(body_bytes=len(OPEN) + 3),
            _chunked(OPEN, LIVE),
            _chunked(OPEN) + b"%x\r\n" % len(LIVE) + LIVE[:3],
        ),
    ],
)
def test_a_cut_falls_at_its_place(cut: Cut, response: bytes, kept: bytes, split: bool) -> None:
    """However the bytes arrive, exactly those before the cut are let through."""
    pieces = _bytewise(response) if split else [response]
    place = _cut_at(cut, pieces)
    assert place is not None
    assert response[:place] == kept


def test_a_cut_that_is_not_reached_is_none() -> None:
    """Fewer blocks than the cut waits for."""
    assert _cut_at(Cut(blocks=3), [_chunked(OPEN, LIVE)]) is None


def test_a_cut_counts_from_when_it_is_set() -> None:
    """What came before does not count."""
    meter = ResponseMeter()
    assert meter.feed(_chunked(OPEN, LIVE)) is None
    meter.set_cut(Cut(blocks=1))
    chunk = b"%x\r\n%b\r\n" % (len(NEW), NEW)
    assert meter.feed(chunk) == len(chunk)


@pytest.mark.parametrize("split", [False, True])
def test_events_are_counted_by_name_over_kept_alive_responses(split: bool) -> None:
    """The next response on a connection begins where the one before ends."""
    refused = b"event: stream.refused\ndata: {}\n\n"
    length = b"Content-Length: %d\r\n\r\n" % len(refused)
    data = _chunked(refused, end=True) + HEAD + length + refused + _chunked(OPEN, NEW, NEW)
    meter = ResponseMeter()
    for piece in _bytewise(data) if split else [data]:
        assert meter.feed(piece) is None
    assert meter.heads == 3
    assert dict(meter.events) == {"stream.refused": 2, "stream.open": 1, "message.new": 2}


def test_comments_alone_are_no_event_with_a_name() -> None:
    """A comment block has no name, and an empty line alone is no block."""
    meter = ResponseMeter()
    meter.feed(HEAD + b"\r\n" + b": hello\n\n\n\n" + NEW)
    assert dict(meter.events) == {"": 1, "message.new": 1}


@pytest.mark.parametrize(
    ("target", "fields", "said"),
    [
        ("/s?token=t", "", (None, None)),
        ("/s?token=t", "Last-Event-ID: 7\r\n", ("Last-Event-ID", "7")),
        ("/s?token=t", "last-event-id: 3\r\nLast-Event-ID: 8\r\n", ("Last-Event-ID", "8")),
        ("/s?lastEventId=4&token=t", "", ("lastEventId", "4")),
        ("/s?last_event_id=5", "", ("last_event_id", "5")),
        ("/s?lastEventId=", "", ("lastEventId", "")),
    ],
)
def test_what_a_request_says_of_its_last_event(
    target: str, fields: str, said: tuple[str | None, str | None]
) -> None:
    """The header, of several the last, else one of the parameters; no credential is kept."""
    request = read_head(f"GET {target} HTTP/1.1\r\nHost: x\r\n{fields}".encode())
    assert (request.said_by, request.cursor) == said
    assert "token" not in repr(request)


def test_requests_on_one_connection_are_told_apart() -> None:
    """A client may keep a connection alive and ask again on it."""
    reader = RequestReader()
    one = b"GET /s HTTP/1.1\r\nLast-Event-ID: %d\r\n\r\n"
    found = [request for piece in _bytewise(one % 1 + one % 2) for request in reader.feed(piece)]
    assert [request.cursor for request in found] == ["1", "2"]
