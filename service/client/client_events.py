"""The values that the client returns: events, messages, receipts, pages, builds. Pure.

Their JSON is docs/protocol.md §4 and §6. Unknown fields are ignored, so that a client goes on with
a newer service. The library's structs in `streams` are not used: importing them loads its drivers.
"""

from __future__ import annotations

from typing import Any, Literal, TypeVar

import msgspec

from service.client.client_errors import BadRequest, ProtocolViolation

MESSAGE_EVENTS = frozenset({"message.new", "message.replay"})

Order = Literal["asc", "desc"]

_T = TypeVar("_T")


class Event(msgspec.Struct, frozen=True):
    """One event: its name and its data, as JSON on one line.

    `seq` is None for what has no place in the project's log.
    """

    name: str
    json: bytes
    seq: int | None = None

    @property
    def data(self) -> dict[str, Any]:
        """The data, decoded at every access."""
        return decode(self.json, dict[str, Any])


class Content(msgspec.Struct, frozen=True):
    """The content of a message."""

    text: str = ""
    type: str = "user"
    mode: str = "chat"
    actor_type: str = "client"


class Message(Event, frozen=True, kw_only=True):
    """A committed message. `seq` numbers the project's messages 1, 2, 3 … in commit order.

    `name` is `message.new`, or `message.replay` for one that was missed: replayed by the stream or
    fetched from the history.
    """

    seq: int
    message_id: str
    client_msg_id: str | None
    project_id: str
    user_id: str
    content: Content
    timestamp: str
    metadata: dict[str, Any]
    parent_id: str | None = None

    @property
    def text(self) -> str:
        """The text of the content."""
        return self.content.text


class _WireMessage(msgspec.Struct):
    seq: int
    messageId: str  # noqa: N815
    projectId: str  # noqa: N815
    userId: str  # noqa: N815
    timestamp: str
    content: Content = Content()
    client_msg_id: str | None = None
    metadata: dict[str, Any] = {}
    parentId: str | None = None  # noqa: N815


class Receipt(msgspec.Struct, frozen=True, rename="camel"):
    """The service's answer to a message. `duplicate`: the client_msg_id was sent before.

    A retry of the client's own after a lost answer is a duplicate too.
    """

    seq: int
    message_id: str
    project_id: str
    timestamp: str
    duplicate: bool
    client_msg_id: str | None = msgspec.field(name="client_msg_id", default=None)


class Page(msgspec.Struct, frozen=True):
    """A page of the history. `next_after_seq` is where an ascending reader goes on."""

    messages: tuple[Message, ...]
    head_seq: int
    has_more: bool
    next_after_seq: int | None


class _WirePage(msgspec.Struct, rename="camel"):
    messages: list[msgspec.Raw]
    head_seq: int
    has_more: bool
    next_after_seq: int | None = None


class Build(msgspec.Struct, frozen=True, rename="camel"):
    """A build as the members of its project see it; `progress` is 0 to 100."""

    build_id: str
    version_id: str
    project_id: str
    user_id: str
    status: str
    attempt: int
    message_seq: int
    created_at: str
    updated_at: str
    cancel_requested: bool = False
    progress: float | None = None
    step: str | None = None
    message: str | None = None
    result: Any = None
    end_seq: int | None = None
    started_at: str | None = None
    ended_at: str | None = None


class BuildList(msgspec.Struct):
    """The answer to a list of builds."""

    builds: tuple[Build, ...]


def encode(body: object) -> bytes:
    """Return what a request says as JSON. Raises `BadRequest` when it cannot be written so."""
    try:
        return msgspec.json.encode(body)
    except (TypeError, ValueError, RecursionError) as error:
        raise BadRequest(400, "VALIDATION_FAILED", "cannot be written as JSON") from error


def decode(json: bytes, kind: type[_T]) -> _T:
    """Decode JSON of the service. Raises `ProtocolViolation` when it has another form."""
    try:
        return msgspec.json.decode(json, type=kind)
    except msgspec.DecodeError as error:
        raise ProtocolViolation(f"unexpected JSON: {error}") from None


def message_of(json: bytes, name: str = "message.new") -> Message:
    """Decode the data of a message's event, or a message of the history."""
    wire = decode(json, _WireMessage)
    return Message(
        name=name,
        json=json,
        seq=wire.seq,
        message_id=wire.messageId,
        client_msg_id=wire.client_msg_id,
        project_id=wire.projectId,
        user_id=wire.userId,
        content=wire.content,
        timestamp=wire.timestamp,
        metadata=wire.metadata,
        parent_id=wire.parentId,
    )


def page_of(json: bytes) -> Page:
    """Decode a page of the history."""
    wire = decode(json, _WirePage)
    return Page(
        tuple(message_of(bytes(raw), "message.replay") for raw in wire.messages),
        wire.head_seq,
        wire.has_more,
        wire.next_after_seq,
    )
