"""What was sent, acknowledged and received: plain records, for the checker to judge.

Only data. How it is collected is in `sse_client.py` and `writer.py`, what it must satisfy in
`checker.py`. Times are seconds of the monotonic clock, which all processes of a machine share.
"""

from __future__ import annotations

import msgspec


class Post(msgspec.Struct, frozen=True):
    """A message that a writer tried to append, whether or not it was ever answered."""

    project_id: str
    user_id: str
    client_msg_id: str
    text: str


class Acknowledgement(msgspec.Struct, frozen=True):
    """The answer that told a writer that its post is in the log. One post may have several."""

    post: Post
    seq: int
    message_id: str
    duplicate: bool
    at_s: float


class Event(msgspec.Struct, frozen=True):
    """One block of an event stream as it arrived; `data` is its raw UTF-8.

    `event_id` is the block's id or, when it has none, the last one before it, as EventSource
    has it. A block without data is no event; its `name` is empty.
    """

    name: str
    event_id: str
    data: bytes
    at_s: float = 0.0


class Connection(msgspec.Struct, frozen=True):
    """One connection to a stream: the cursor that was sent, and what came, in order.

    `cursor` is the text of the Last-Event-ID or of the query; None means "live from head".
    """

    cursor: str | None
    events: tuple[Event, ...]


class ClientHistory(msgspec.Struct, frozen=True):
    """All connections of one client to one project, in order.

    `must_reach_head` is false for a client that was given up before the end (a stalled one);
    what it did receive is judged all the same. `keeps_up` is false for one that reads slowly, or
    not at all for a while: what only the window holds may be gone before it reads it.
    """

    name: str
    project_id: str
    connections: tuple[Connection, ...]
    must_reach_head: bool = True
    keeps_up: bool = True


class BuildAcknowledgement(msgspec.Struct, frozen=True):
    """The answer that told a writer that its build is queued. One post may have several."""

    post: Post
    build_id: str


class BuildRow(msgspec.Struct, frozen=True):
    """A build as its project's members see it after the last one has ended."""

    build_id: str
    status: str
    attempt: int
    message_seq: int
    end_seq: int | None


class BuildEnd(msgspec.Struct, frozen=True):
    """What a message says that ends a build: `completed` or `failed`."""

    build_id: str
    status: str
    attempt: int


class LogRow(msgspec.Struct, frozen=True):
    """A message of the log: what identifies it, and the JSON form that the history gives it."""

    seq: int
    message_id: str
    client_msg_id: str | None
    user_id: str
    text: str
    data: bytes
    build_end: BuildEnd | None = None


class _Content(msgspec.Struct):
    text: str


class _Ending(msgspec.Struct, rename="camel"):
    type: str = ""
    attempt: int = 0


class _Metadata(msgspec.Struct):
    build_id: str | None = None
    response_data: _Ending | None = None


class _MessageData(msgspec.Struct, rename="camel"):
    seq: int
    message_id: str
    user_id: str
    content: _Content
    client_msg_id: str | None = msgspec.field(name="client_msg_id", default=None)
    metadata: _Metadata = msgspec.field(default_factory=_Metadata)


_message_decoder = msgspec.json.Decoder(_MessageData)


def log_row(data: bytes) -> LogRow:
    """Read a message in its JSON form (of the history or an event); raises `msgspec` errors."""
    message = _message_decoder.decode(data)
    return LogRow(
        seq=message.seq,
        message_id=message.message_id,
        client_msg_id=message.client_msg_id,
        user_id=message.user_id,
        text=message.content.text,
        data=data,
        build_end=_build_end(message.metadata),
    )


def _build_end(metadata: _Metadata) -> BuildEnd | None:
    ending = metadata.response_data
    if metadata.build_id is None or ending is None or not ending.type.startswith("build_"):
        return None
    return BuildEnd(metadata.build_id, ending.type.removeprefix("build_"), ending.attempt)
