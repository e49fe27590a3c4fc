"""Records of answers: who asked for them, wrote and stopped them, and what of them arrived.

Data only: `answer_requester.py` and others collect it, `answer_checker.py` judges it.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from tests.support.history import Event


class AskedAnswer(msgspec.Struct, frozen=True):
    """An answer that the service acknowledged; repeats of one request have one each.

    `message_id` is the answer's, `reply_to` that of the message it answers. `intended` is the text
    that its writer would write if nothing ended it early: for a writer outside, all that it tried
    to send. `regenerates` names the answer in whose place it was asked for.
    """

    message_id: str
    reply_to: str
    intended: str
    regenerates: str | None = None


class StopRequest(msgspec.Struct, frozen=True):
    """A member's request to stop an answer; `accepted` when one attempt was answered with 202."""

    message_id: str
    user_id: str
    accepted: bool


class ShownPart(msgspec.Struct, frozen=True):
    """A part as `answer.state` and the message list it."""

    kind: str
    offset: int
    data: object


class Piece(msgspec.Struct, frozen=True, rename="camel"):
    """The content of a `message.delta`: `delta` for text, `data` for the other kinds."""

    message_id: str
    index: int
    kind: str = "text"
    delta: str = ""
    data: object = None


class State(msgspec.Struct, frozen=True, rename="camel"):
    """The content of an `answer.state`: everything up to piece `index`."""

    message_id: str
    reply_to: str
    index: int
    text: str
    parts: tuple[ShownPart, ...] = ()
    status: str = "in_progress"


class WrittenAnswer(msgspec.Struct, frozen=True):
    """What a writer outside was acknowledged: its pieces in order, and how the answer ended.

    `status` is what its request to end the answer was answered with; None when it got no answer.
    """

    message_id: str
    pieces: tuple[Piece, ...]
    status: str | None = None


class _PieceData(msgspec.Struct):
    content: Piece


class _StateData(msgspec.Struct):
    content: State


_piece = msgspec.json.Decoder(_PieceData)
_state = msgspec.json.Decoder(_StateData)
_parts = msgspec.json.Decoder(tuple[ShownPart, ...])


def piece_of(event: Event) -> Piece:
    """Decode a `message.delta`. Raises `msgspec.DecodeError`."""
    return _piece.decode(event.data).content


def state_of(event: Event) -> State:
    """Decode an `answer.state`. Raises `msgspec.DecodeError`."""
    return _state.decode(event.data).content


def parts_of(data: bytes) -> tuple[ShownPart, ...]:
    """Decode the parts of a message. Raises `msgspec.DecodeError`."""
    return _parts.decode(data)


def pieces(events: Sequence[Event], message_id: str) -> list[Piece]:
    """Return the pieces of one answer in the order in which they arrived."""
    found = [piece_of(event) for event in events if event.name == "message.delta"]
    return [piece for piece in found if piece.message_id == message_id]
