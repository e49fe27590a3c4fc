"""The data of `message.delta` and `answer.state` (docs/protocol.md §6). Pure."""

from __future__ import annotations

import msgspec

from streams.answers.answer_values import Answer, AnswerState
from streams.answers.pieces import Part, Piece, PieceKind, part_piece, text_piece
from streams.model.errors import InvalidInput
from streams.model.events import encode, format_now

MESSAGE_DELTA = "message.delta"
ANSWER_STATE = "answer.state"


class _DeltaContent(msgspec.Struct, rename="camel", omit_defaults=True):
    message_id: str
    index: int
    # Entries of code before kinds have none.
    kind: PieceKind | None = None
    delta: str | None = None
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _Delta(msgspec.Struct, rename="camel"):
    project_id: str
    user_id: str
    content: _DeltaContent
    timestamp: str


class _StateContent(msgspec.Struct, rename="camel", omit_defaults=True, kw_only=True):
    message_id: str
    reply_to: str
    # So that readers know while it is written what it will replace.
    regenerates: str | None = None
    index: int
    text: str
    parts: list[Part]
    status: str


class _State(msgspec.Struct, rename="camel"):
    project_id: str
    user_id: str
    content: _StateContent
    timestamp: str


class Delta(msgspec.Struct, frozen=True):
    """A piece as a reader received it."""

    answer_id: str
    index: int
    piece: Piece


class _HasMessageId(msgspec.Struct, rename="camel"):
    message_id: str


# Of the announcement that an answer begins: ids and a time.
_MAX_BEGIN_BYTES = 2048

_decode_delta = msgspec.json.Decoder(_Delta).decode
_decode_state = msgspec.json.Decoder(_State).decode
_decode_message_id = msgspec.json.Decoder(_HasMessageId).decode


def delta_data(answer: Answer, index: int, piece: Piece) -> bytes:
    """Return the data of `message.delta` for a piece of an answer."""
    content = _DeltaContent(answer.id, index, piece.kind)
    if piece.kind == "text":
        content.delta = piece.delta
    else:
        content.data = msgspec.Raw(piece.data)
    return encode(_Delta(answer.project_id, answer.user_id, content, format_now()))


def read_delta(data: bytes) -> Delta | None:
    """Return the piece in the data of a `message.delta`; None when there is none.

    Other programs with access to Redis can put anything into a stream.
    """
    try:
        content = _decode_delta(data).content
        kind = content.kind or "text"
        if kind == "text":
            piece = text_piece(content.delta or "")
        elif isinstance(content.data, msgspec.Raw):
            piece = part_piece(kind, msgspec.json.decode(content.data))
        else:
            return None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, InvalidInput):
        return None
    return Delta(content.message_id, content.index, piece)


def state_data(state: AnswerState) -> bytes:
    """Return the data of `answer.state`."""
    answer = state.answer
    content = _StateContent(
        message_id=answer.id,
        reply_to=answer.reply_to,
        regenerates=answer.regenerates,
        index=state.index,
        text=state.text,
        parts=state.parts,
        status=state.status,
    )
    return encode(_State(answer.project_id, answer.user_id, content, format_now()))


def read_begin(data: bytes) -> tuple[str, bytes] | None:
    """Return the answer that begins, and the data to pass on; None when it says anything else.

    The data is encoded anew: only known fields of it reach a client.
    """
    if len(data) > _MAX_BEGIN_BYTES:
        return None
    try:
        state = _decode_state(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    content = state.content
    is_begin = content.index == -1 and not content.text and not content.parts
    if not is_begin or content.status != "in_progress":
        return None
    return content.message_id, encode(state)


def read_answer_id(data: bytes) -> str | None:
    """Return the id of a message that may be an answer's, from the data of `message.new`."""
    # Most messages are users'. In JSON, no text contains these bytes.
    if b'"type":"assistant"' not in data:
        return None
    try:
        return _decode_message_id(data).message_id
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
