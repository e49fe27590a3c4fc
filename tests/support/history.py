"""Records of what was posted, acknowledged and received.

Data only: `sse_client.py` and `writer.py` collect it, `checker.py` and `build_checker.py` judge it.
What is recorded of answers is in `answer_history.py`.
Times are seconds of the monotonic clock, which all processes of a machine share.
"""

from __future__ import annotations

import msgspec


class Post(msgspec.Struct, frozen=True):
    """A message that a writer tried to append, answered or not."""

    project_id: str
    user_id: str
    client_msg_id: str
    text: str


class Acknowledgement(msgspec.Struct, frozen=True):
    """An answer that acknowledges a post. Repeats of one post have one each."""

    post: Post
    seq: int
    message_id: str
    duplicate: bool
    at_s: float


class Event(msgspec.Struct, frozen=True):
    """One block of an event stream as it arrived; `data` is its raw UTF-8.

    `event_id` is the block's id or, when it has none, the last id before it, as in an EventSource.
    A block without data has an empty name; the service sends none.
    """

    name: str
    event_id: str
    data: bytes
    at_s: float = 0.0


class Connection(msgspec.Struct, frozen=True):
    """One connection to a stream: the cursor that was sent, and the events received, in order.

    `cursor` is the text of Last-Event-ID or of the query; None means "live from head".
    """

    cursor: str | None
    events: tuple[Event, ...]


class ClientHistory(msgspec.Struct, frozen=True):
    """All connections of one client to one project, in order.

    `must_reach_head` is false for a client that was closed before the end (a stalled one); what
    it did receive is judged nevertheless. `keeps_up` is false for a client that reads slowly or
    stalls: transient entries may leave the window before it reads them.
    """

    name: str
    project_id: str
    connections: tuple[Connection, ...]
    must_reach_head: bool = True
    keeps_up: bool = True


class BuildAcknowledgement(msgspec.Struct, frozen=True):
    """An answer that confirms a queued build. Repeats of one request have one each."""

    post: Post
    build_id: str


class BuildRow(msgspec.Struct, frozen=True):
    """A build as the API lists it after all builds have ended."""

    build_id: str
    status: str
    attempt: int
    message_seq: int
    end_seq: int | None


class BuildEnd(msgspec.Struct, frozen=True):
    """The build's end in the message that reports it: `completed` or `failed`."""

    build_id: str
    status: str
    attempt: int


class AnswerEnd(msgspec.Struct, frozen=True):
    """The end of an assistant's answer in its message: `answer`, `answer_stopped`, `answer_failed`.

    `parts` is the JSON of what is not text, as it stands there; `regenerates` names the answer
    before.
    """

    type: str
    reply_to: str | None
    stopped_by: str | None
    parts: bytes
    regenerates: str | None


class LogRow(msgspec.Struct, frozen=True):
    """A message of the log: its identity, and its JSON form as the history returns it."""

    seq: int
    message_id: str
    client_msg_id: str | None
    user_id: str
    text: str
    data: bytes
    build_end: BuildEnd | None = None
    answer_end: AnswerEnd | None = None


class _Content(msgspec.Struct):
    text: str


class _Ending(msgspec.Struct, rename="camel"):
    type: str = ""
    attempt: int = 0
    reply_to: str | None = None
    stopped_by: str | None = None
    parts: msgspec.Raw = msgspec.Raw(b"[]")


class _Metadata(msgspec.Struct):
    build_id: str | None = None
    response_data: _Ending | None = None
    regenerates: str | None = None


class _MessageData(msgspec.Struct, rename="camel"):
    seq: int
    message_id: str
    user_id: str
    content: _Content
    client_msg_id: str | None = msgspec.field(name="client_msg_id", default=None)
    metadata: _Metadata = msgspec.field(default_factory=_Metadata)


_message_decoder = msgspec.json.Decoder(_MessageData)


def log_row(data: bytes) -> LogRow:
    """Decode a message of the history or an event. Raises `msgspec.DecodeError`."""
    message = _message_decoder.decode(data)
    return LogRow(
        seq=message.seq,
        message_id=message.message_id,
        client_msg_id=message.client_msg_id,
        user_id=message.user_id,
        text=message.content.text,
        data=data,
        build_end=_build_end(message.metadata),
        answer_end=_answer_end(message.metadata),
    )


def _build_end(metadata: _Metadata) -> BuildEnd | None:
    ending = metadata.response_data
    if metadata.build_id is None or ending is None or not ending.type.startswith("build_"):
        return None
    return BuildEnd(metadata.build_id, ending.type.removeprefix("build_"), ending.attempt)


def _answer_end(metadata: _Metadata) -> AnswerEnd | None:
    ending = metadata.response_data
    if ending is None or not ending.type.startswith("answer"):
        return None
    return AnswerEnd(
        type=ending.type,
        reply_to=ending.reply_to,
        stopped_by=ending.stopped_by,
        parts=bytes(ending.parts),
        regenerates=metadata.regenerates,
    )
