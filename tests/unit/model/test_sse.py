"""docs/protocol.md §6: frames as literal bytes, and as third-party parsers read them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import httpx
import msgspec
import pytest
from httpx_sse import EventSource
from hypothesis import example, given
from hypothesis import strategies as st
from sseclient import SSEClient

from streams.model import sse
from streams.model.events import NO_METADATA, Content, Message, encode


def test_a_message_is_three_lines_and_an_empty_one() -> None:
    """§6: `message.new`, id seq, data in one line."""
    assert sse.message_frame(7, b'{"seq":7}') == (b'event: message.new\ndata: {"seq":7}\nid: 7\n\n')


def test_an_event_without_a_seq_has_no_id() -> None:
    """§6: only messages have an id, so only they move a client's cursor."""
    assert sse.event_frame("stream.live", b"{}") == b"event: stream.live\ndata: {}\n\n"


def test_the_delay_and_the_cursor_are_in_the_block_of_an_event() -> None:
    """§6: no block carries `retry` or `id` alone, since many clients drop it or misread it."""
    frame = sse.control_frame("stream.open", b"{}", cursor=41, retry_ms=2000)
    assert frame == b"event: stream.open\nretry: 2000\ndata: {}\nid: 41\n\n"


def test_a_control_event_may_set_the_delay_alone() -> None:
    """§6: `stream.closing` has a `retry:` and leaves the client's cursor as it is."""
    frame = sse.control_frame("stream.closing", b"{}", cursor=None, retry_ms=250)
    assert frame == b"event: stream.closing\nretry: 250\ndata: {}\n\n"


def test_a_cursor_of_zero_is_a_cursor() -> None:
    """§6: the id of an empty project's stream is 0, from which nothing is lost."""
    assert b"\nid: 0\n" in sse.control_frame("stream.open", b"{}", cursor=0, retry_ms=None)


_FRAMINGS = {
    "message": lambda data: sse.message_frame(7, data),
    "event": lambda data: sse.event_frame("build.status", data),
    "control": lambda data: sse.control_frame("stream.open", data, cursor=1, retry_ms=1),
}


@pytest.mark.parametrize("framing", _FRAMINGS.values(), ids=_FRAMINGS.keys())
def test_the_separators_that_only_unicode_knows_are_escaped(
    framing: Callable[[bytes], bytes],
) -> None:
    """§6: U+0085, U+2028 and U+2029; other characters stay, the ones beside them too."""
    text = "a\x85b\u2028c\u2029d\u2027e\u202a\u0084\u00c5\u20a8 \u00a0\ufeff"
    frame = framing(msgspec.json.encode({"text": text}))
    data = sse.data_of(frame)
    assert data == (
        b'{"text":"a\\u0085b\\u2028c\\u2029d'
        + "\u2027e\u202a\u0084\u00c5\u20a8 \u00a0\ufeff".encode()
        + b'"}'
    )
    assert msgspec.json.decode(data) == {"text": text}
    assert len(frame.decode().splitlines()) == frame.count(b"\n")


def test_a_replayed_message_differs_in_its_name_alone() -> None:
    """§6: `message.replay` has the same id and data as `message.new`."""
    frame = sse.message_frame(7, b'{"event: message.new\\n":1}')
    assert sse.as_replay(frame) == (
        b'event: message.replay\ndata: {"event: message.new\\n":1}\nid: 7\n\n'
    )


def test_any_other_event_is_replayed_under_its_own_name() -> None:
    """§6: transient entries among the replayed messages keep their event."""
    frame = sse.event_frame("build.status", b"{}")
    assert sse.as_replay(frame) == frame


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (sse.message_frame(7, b'{"a":"\\ndata: x"}'), ("message.new", 7, b'{"a":"\\ndata: x"}')),
        (sse.event_frame("build.status", b"{}"), ("build.status", None, b"{}")),
    ],
)
def test_a_frame_is_read_back(frame: bytes, expected: tuple[str, int | None, bytes]) -> None:
    """`EventLog.follow` reads name, id and data from the frame that all readers share."""
    assert (*sse.name_and_id(frame), sse.data_of(frame)) == expected


def _message(text: str) -> Message:
    content = Content(text, "user", "chat", "client")
    return Message(7, "m", None, "p", "u", content, "2026-01-02T03:04:05.000006Z", NO_METADATA)


# Everything but lone surrogates, which no UTF-8 text has.
_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
_tricky = st.text(st.sampled_from('\n\r\0\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029\ufeff: "\\dataid'))


def _cut(data: bytes, sizes: Sequence[int]) -> Iterator[bytes]:
    """Cut bytes into pieces of these sizes, as a network may."""
    start = 0
    for size in sizes:
        yield data[start : start + size]
        start += size
    yield data[start:]


_cuts = st.lists(st.integers(1, 40), max_size=12)


@given(st.one_of(_texts, _tricky), _cuts)
@example("x" * 65_536, [1, 60_000])
@example("\n" * 65_536, [])
@example("\u2028" * 20_000, [4097])
def test_httpx_sse_reads_any_text(text: str, sizes: list[int]) -> None:
    """§6: whatever a message says, a client gets one event with exactly that text."""
    wire = sse.message_frame(7, encode(_message(text))) + sse.event_frame("stream.live", b"{}")
    response = httpx.Response(
        200, headers={"Content-Type": "text/event-stream"}, content=_cut(wire, sizes)
    )
    first, second = EventSource(response).iter_sse()
    assert (first.event, first.id, second.event) == ("message.new", "7", "stream.live")
    assert _text_of(first.data) == text


@given(st.one_of(_texts, _tricky), _cuts)
@example("x" * 65_536, [1, 60_000])
@example("\n" * 65_536, [])
def test_sseclient_reads_any_text(text: str, sizes: list[int]) -> None:
    """§6: the same, read by another parser."""
    wire = sse.message_frame(7, encode(_message(text))) + sse.event_frame("stream.live", b"{}")
    first, second = SSEClient(_cut(wire, sizes)).events()
    assert (first.event, first.id, second.event) == ("message.new", "7", "stream.live")
    assert _text_of(first.data) == text


def _text_of(data: str) -> str:
    return msgspec.json.decode(data, type=Message).content.text
