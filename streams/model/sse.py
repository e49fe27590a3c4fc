"""Server-Sent Events framing: the only file that knows the bytes of a frame. Pure.

After https://html.spec.whatwg.org/multipage/server-sent-events.html. Every block has data, because
clients differ in what they do with one that has none: some drop it with its `id`, others surface an
empty event. So `id` and `retry` stand in the block of an event. The `id` comes after the data: some
clients take it as soon as its line is there, and would never ask again for a message whose data was
cut off. Which events exist, what is in their data and when they are sent does not belong here.
"""

from __future__ import annotations

import re

_NEW_HEAD = b"event: message.new\n"
_REPLAY_HEAD = b"event: message.replay\n"
# U+0085, U+2028 and U+2029 in UTF-8. Readers that split lines as Unicode does end the line there.
_SEPARATORS = re.compile(rb"\xc2\x85|\xe2\x80[\xa8\xa9]")
_ESCAPES = {b"\xc2\x85": b"\\u0085", b"\xe2\x80\xa8": b"\\u2028", b"\xe2\x80\xa9": b"\\u2029"}


def message_frame(seq: int, data: bytes) -> bytes:
    """Frame a message as `message.new`, with its seq as the event's id. `data` is JSON."""
    return b"event: message.new\ndata: %b\nid: %d\n\n" % (_one_line(data), seq)


def as_replay(frame: bytes) -> bytes:
    """Turn a frame of `message.new` into `message.replay`; leave any other frame as it is.

    The two differ in one line, so that one encoding serves both.
    """
    if frame.startswith(_NEW_HEAD):
        return _REPLAY_HEAD + frame[len(_NEW_HEAD) :]
    return frame


def event_frame(event: str, data: bytes) -> bytes:
    """Frame an event without an id, so that it never moves a client's cursor. `data` is JSON."""
    return b"event: %b\ndata: %b\n\n" % (event.encode(), _one_line(data))


def control_frame(event: str, data: bytes, *, cursor: int | None, retry_ms: int | None) -> bytes:
    """Frame an event that also sets the client's cursor, its reconnect delay, or both."""
    return b"event: %b\n%bdata: %b\n%b\n" % (
        event.encode(),
        b"" if retry_ms is None else b"retry: %d\n" % retry_ms,
        _one_line(data),
        b"" if cursor is None else b"id: %d\n" % cursor,
    )


def _one_line(data: bytes) -> bytes:
    """Return JSON on one line, however a reader splits lines: in JSON these are escaped text."""
    if data.isascii():
        return data
    return _SEPARATORS.sub(lambda found: _ESCAPES[found[0]], data)


def data_of(frame: bytes) -> bytes:
    """Return the data of a frame that was made here."""
    start = frame.index(b"\ndata: ") + 7
    return frame[start : frame.index(b"\n", start)]


def name_and_id(frame: bytes) -> tuple[str, int | None]:
    """Return the event's name and id (none without one) of a message's or an event's frame."""
    name, _, rest = frame.partition(b"\n")
    _, _, last = rest[:-2].rpartition(b"\n")
    return name[7:].decode(), int(last[4:]) if last.startswith(b"id: ") else None
