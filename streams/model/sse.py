"""Server-Sent Events framing: the only file that knows the bytes of a frame. Pure.

After https://html.spec.whatwg.org/multipage/server-sent-events.html: a block of lines ends with
an empty line; a block without data dispatches no event, but the client keeps its `id`. Which
events exist, what is in their data and when they are sent does not belong here.
"""

from __future__ import annotations

_NEW_HEAD = b"event: message.new\n"
_REPLAY_HEAD = b"event: message.replay\n"


def message_frame(seq: int, data: bytes) -> bytes:
    """Frame a message as `message.new`, with its seq as the event's id."""
    return b"event: message.new\nid: %d\ndata: %b\n\n" % (seq, data)


def as_replay(frame: bytes) -> bytes:
    """Turn a frame of `message.new` into `message.replay`; leave any other frame as it is.

    The two differ in one line, so that one encoding serves both.
    """
    if frame.startswith(_NEW_HEAD):
        return _REPLAY_HEAD + frame[len(_NEW_HEAD) :]
    return frame


def event_frame(event: str, data: bytes) -> bytes:
    """Frame an event without an id, so that it never moves a client's cursor."""
    return b"event: %b\ndata: %b\n\n" % (event.encode(), data)


def data_of(frame: bytes) -> bytes:
    """Return the data of a frame that `message_frame` or `event_frame` made."""
    return frame[frame.index(b"\ndata: ") + 7 : -2]


def priming(retry_ms: int, cursor: int) -> bytes:
    """Return the first bytes of a stream: the reconnect delay, and the cursor to reconnect with.

    A block with an id and no data sets the client's last event id without an event.
    """
    return b"retry: %d\nid: %d\n\n" % (retry_ms, cursor)


def retry(retry_ms: int) -> bytes:
    """Return a block that sets the client's delay before it reconnects."""
    return b"retry: %d\n\n" % retry_ms


def name_and_id(frame: bytes) -> tuple[str, int | None]:
    """Return the event's name and id (none without one) of a frame that was made here."""
    head = frame[: frame.index(b"\ndata: ")].split(b"\n")
    name = head[0][7:].decode()
    return name, int(head[1][4:]) if len(head) > 1 else None
