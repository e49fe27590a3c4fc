"""Messages, transient entries and ephemeral events of a project, and their JSON. Pure.

The structs are the wire form of docs/protocol.md §6: `encode` returns the `data` of an event, the
same bytes in Redis, in the history and on the stream. SSE framing is in `sse.py`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Literal

import msgspec

from streams.model.errors import InvalidInput, PayloadTooLarge
from streams.model.ids import EntryId, check_user_id

MAX_TEXT_BYTES = 64 * 1024
MAX_METADATA_BYTES = 64 * 1024
MAX_PARTS_BYTES = 64 * 1024
"""Of all parts of an answer, as JSON in its message's metadata."""
_MAX_ID_LENGTH = 128

MessageType = Literal["user", "assistant", "system"]
Mode = Literal["chat", "plan", "build"]
ActorType = Literal["client", "assistant", "worker"]
BuildState = Literal["queued", "in_progress", "completed", "failed"]

EPHEMERAL_EVENTS = frozenset({"typing.start", "typing.stop", "presence.changed"})

NO_METADATA = msgspec.Raw(b'{"build_id":null,"response_data":null}')

_encoder = msgspec.json.Encoder()
_canonical_encoder = msgspec.json.Encoder(order="sorted")
encode = _encoder.encode


class Content(msgspec.Struct, frozen=True):
    """The content of a message."""

    text: str
    type: MessageType
    mode: Mode
    actor_type: ActorType


class Message(
    msgspec.Struct,
    frozen=True,
    omit_defaults=True,
    rename={
        "message_id": "messageId",
        "project_id": "projectId",
        "user_id": "userId",
        "parent_id": "parentId",
    },
):
    """A committed message of the log: durable, with its seq.

    `timestamp` is the committed row's time, RFC 3339 UTC with microseconds.
    """

    seq: int
    message_id: str
    client_msg_id: str | None
    project_id: str
    user_id: str
    content: Content
    timestamp: str
    metadata: msgspec.Raw
    parent_id: str | None = None


class NewMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A message to append.

    With a `client_msg_id` the append is idempotent per user and project: a repeat adds nothing.
    Without one, a retry after an unknown outcome may add the message twice. Set `message_id`, a
    new UUID, when the id must be known before the append.
    """

    user_id: str
    text: str
    client_msg_id: str | None = None
    type: MessageType = "user"
    mode: Mode = "chat"
    actor_type: ActorType = "client"
    parent_id: str | None = None
    metadata: Mapping[str, object] | None = None
    message_id: str | None = None


class PreparedMessage(msgspec.Struct, frozen=True):
    """A checked message, with the id, metadata and digest that the log stores beside it."""

    message_id: str
    source: NewMessage
    metadata: bytes | None
    digest: bytes | None

    @property
    def size_bytes(self) -> int:
        """Size of the text and the metadata."""
        return len(self.source.text.encode()) + len(self.metadata or b"")

    def committed(self, project_id: str, seq: int, message_id: str, timestamp: str) -> Message:
        """Return the message as it is committed under this seq, id and time."""
        source = self.source
        return Message(
            seq=seq,
            message_id=message_id,
            client_msg_id=source.client_msg_id,
            project_id=project_id,
            user_id=source.user_id,
            content=Content(source.text, source.type, source.mode, source.actor_type),
            timestamp=timestamp,
            metadata=NO_METADATA if self.metadata is None else msgspec.Raw(self.metadata),
            parent_id=source.parent_id,
        )


def prepare(message: NewMessage) -> PreparedMessage:
    """Check a message and compute what is stored beside it.

    Raises:
        InvalidInput: a field breaks a rule (`field` names it).
        PayloadTooLarge: the text or the metadata is above its limit.
    """
    check_text(message.text)
    return _prepare(message, MAX_METADATA_BYTES)


def prepare_answer(message: NewMessage) -> PreparedMessage:
    """As `prepare`, for an answer: its text may be empty, and its metadata also has its parts."""
    if message.text:
        check_text(message.text)
    return _prepare(message, MAX_METADATA_BYTES + MAX_PARTS_BYTES)


def _prepare(message: NewMessage, max_metadata_bytes: int) -> PreparedMessage:
    check_user_id(message.user_id)
    if message.client_msg_id is not None:
        check_opaque_id(message.client_msg_id, "client_msg_id")
    if message.parent_id is not None:
        check_opaque_id(message.parent_id, "parentId")
    metadata = None
    if message.metadata:
        metadata = encode_metadata(message.metadata, max_metadata_bytes)
    digest = None if message.client_msg_id is None else _digest(message)
    return PreparedMessage(message.message_id or _new_id(), message, metadata, digest)


def _new_id() -> str:
    """Return a random UUID (RFC 9562, version 4) in a third of the time of `uuid.uuid4`."""
    digits = os.urandom(16).hex()
    variant = "89ab"[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"


def check_text(text: str, field: str = "message") -> str:
    """Return the text of a message, or raise `InvalidInput` or `PayloadTooLarge` for `field`."""
    if not text:
        raise InvalidInput(field, "must not be empty")
    if "\x00" in text:
        raise InvalidInput(field, "must not contain the character U+0000")
    try:
        size_bytes = len(text.encode())
    except UnicodeEncodeError:
        raise InvalidInput(field, "must not contain a lone surrogate") from None
    if size_bytes > MAX_TEXT_BYTES:
        raise PayloadTooLarge(field, MAX_TEXT_BYTES)
    return text


def check_opaque_id(value: str, field: str) -> None:
    """Return for a client's id, or raise `InvalidInput` for `field`."""
    if not 1 <= len(value) <= _MAX_ID_LENGTH or not value.isprintable():
        raise InvalidInput(field, "must be 1 to 128 printable characters")


def encode_metadata(metadata: Mapping[str, object], max_bytes: int) -> bytes:
    """Return metadata as JSON, or raise `InvalidInput` or `PayloadTooLarge`."""
    full = {"build_id": None, "response_data": None, **metadata}
    try:
        encoded = _encoder.encode(full)
    except (TypeError, UnicodeEncodeError) as error:
        raise InvalidInput("metadata", "cannot be written as JSON") from error
    if len(encoded) > max_bytes:
        raise PayloadTooLarge("metadata", max_bytes)
    return encoded


def _digest(message: NewMessage) -> bytes:
    """Return a hash that differs when a client_msg_id is reused with another content."""
    parts = (
        message.text,
        message.type,
        message.mode,
        message.actor_type,
        message.parent_id,
        message.metadata or None,
    )
    return hashlib.blake2b(_canonical_encoder.encode(parts), digest_size=16).digest()


class BuildContent(
    msgspec.Struct, frozen=True, rename={"build_id": "buildId", "version_id": "versionId"}
):
    """The state of a build; `progress` is 0 to 100."""

    build_id: str
    version_id: str
    attempt: int
    progress: float | None = None
    step: str | None = None
    message: str | None = None


class BuildStatus(
    msgspec.Struct,
    frozen=True,
    omit_defaults=True,
    rename={"project_id": "projectId", "user_id": "userId", "entry_id": "entryId"},
):
    """Data of `build.status`. `entry_id` is set by the window when the entry is appended."""

    project_id: str
    user_id: str
    status: BuildState
    content: BuildContent
    timestamp: str
    metadata: dict[str, object]
    entry_id: str | None = None


class Event(msgspec.Struct, frozen=True):
    """One event as a follower receives it: stream id, name, and data as JSON."""

    id: EntryId
    name: str
    data: bytes

    @property
    def seq(self) -> int | None:
        """The seq of a message; None for a transient entry."""
        return self.id.seq if self.id.k == 0 else None

    def message(self) -> Message:
        """Decode the data of a `message.new`."""
        return msgspec.json.decode(self.data, type=Message)


def format_time(moment: datetime) -> str:
    """Return RFC 3339 UTC with microseconds, always six digits."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")[:-6] + "Z"


def format_unix_ms(unix_ms: int) -> str:
    """Return a time in milliseconds since 1970, as `format_time` writes it."""
    return format_time(datetime.fromtimestamp(unix_ms / 1000, UTC))


def format_now() -> str:
    """Return the current time, as `format_time` writes it."""
    return format_time(datetime.now(UTC))
