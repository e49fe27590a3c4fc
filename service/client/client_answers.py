"""The values of answers: their pieces, their two events, and what requests about them return. Pure.

Their JSON is docs/protocol.md §4 to §6. What pieces become together is in `answer_so_far.py`.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from service.client.client_errors import ProtocolViolation
from service.client.client_events import Event, decode

PartKind = Literal["reasoning", "tool", "data"]


class Piece(msgspec.Struct, frozen=True):
    """A piece of an answer: `delta` is more of its text when `kind` is `text`, else `data` is JSON.

    A kind that is none of `PartKind` comes from a newer service.
    """

    kind: str = "text"
    delta: str = ""
    data: Any = None

    @property
    def wire(self) -> dict[str, object]:
        """The piece as a request has it."""
        named = {"delta": self.delta} if self.kind == "text" else {"data": self.data}
        return {"kind": self.kind, **named}


class Part(msgspec.Struct, frozen=True):
    """What an answer has beside its text, `offset` characters (code points) into it."""

    kind: str
    offset: int
    data: Any = None


class Delta(Event, frozen=True, kw_only=True):
    """`message.delta`: piece `index` of the answer that becomes the message `message_id`."""

    project_id: str
    user_id: str
    message_id: str
    index: int
    piece: Piece


class AnswerState(Event, frozen=True, kw_only=True):
    """`answer.state`: an unfinished answer up to its piece `index`, -1 for none.

    `user_id` is who writes it, `reply_to` the message that it answers.
    """

    project_id: str
    user_id: str
    message_id: str
    reply_to: str
    index: int
    text: str
    parts: tuple[Part, ...]
    status: str


class AnswerView(msgspec.Struct, frozen=True, rename="camel"):
    """How far an answer is. `index` is the last piece that an unfinished one contains."""

    message_id: str
    reply_to: str
    status: str
    text: str
    parts: tuple[Part, ...] = ()
    index: int | None = None


class BegunAnswer(msgspec.Struct, frozen=True, rename="camel"):
    """An answer that was begun; `next_index` is that of the piece that the service expects.

    `regenerates` is the message id of the answer before, if there was one.
    """

    message_id: str
    status: str
    reply_to: str = ""
    next_index: int = 0
    regenerates: str | None = None


class EndedAnswer(msgspec.Struct, frozen=True, rename="camel"):
    """How an answer ended: `status` is `completed`, `stopped` or `failed`; `seq` its message's."""

    message_id: str
    status: str
    seq: int | None = None


class StopReceipt(msgspec.Struct, frozen=True):
    """What becomes of an answer that was asked to stop."""

    status: str


class Taken(msgspec.Struct, frozen=True, rename="camel"):
    """The response to pieces."""

    next_index: int
    stop_requested: bool = False


class _WireDelta(msgspec.Struct):
    messageId: str  # noqa: N815
    index: int
    kind: str = "text"
    delta: str = ""
    data: Any = None


class _WireDeltaEvent(msgspec.Struct):
    content: _WireDelta
    projectId: str = ""  # noqa: N815
    userId: str = ""  # noqa: N815


class _WireState(msgspec.Struct):
    messageId: str  # noqa: N815
    index: int
    text: str
    replyTo: str = ""  # noqa: N815
    parts: tuple[Part, ...] = ()
    status: str = "in_progress"


class _WireStateEvent(msgspec.Struct):
    content: _WireState
    projectId: str = ""  # noqa: N815
    userId: str = ""  # noqa: N815


def event_of(name: str, json: bytes) -> Event:
    """Return an event that is not a message, with a type of its own when it is about an answer.

    Data of another form stays without a type: whoever has access to the service's Redis can put
    such an entry into a stream, and it must not end every follower for as long as it stands there.
    """
    try:
        if name == "message.delta":
            return _delta_of(json)
        if name == "answer.state":
            return _state_of(json)
    except ProtocolViolation:
        pass
    return Event(name, json)


def _delta_of(json: bytes) -> Delta:
    wire = decode(json, _WireDeltaEvent)
    content = wire.content
    return Delta(
        name="message.delta",
        json=json,
        project_id=wire.projectId,
        user_id=wire.userId,
        message_id=content.messageId,
        index=content.index,
        piece=Piece(content.kind, content.delta, content.data),
    )


def _state_of(json: bytes) -> AnswerState:
    wire = decode(json, _WireStateEvent)
    content = wire.content
    return AnswerState(
        name="answer.state",
        json=json,
        project_id=wire.projectId,
        user_id=wire.userId,
        message_id=content.messageId,
        reply_to=content.replyTo,
        index=content.index,
        text=content.text,
        parts=content.parts,
        status=content.status,
    )
