"""Messages and stream entries for tests of pure modules, each made from its number alone."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from streams.model.events import NO_METADATA, Content, Message, encode
from streams.model.ids import EntryId
from streams.window.window import Entry

PROJECT = "p"


def message(seq: int, *, project_id: str = PROJECT, text: str | None = None) -> Message:
    """Return the committed message `seq`; every call returns the same."""
    return Message(
        seq=seq,
        message_id=f"00000000-0000-4000-8000-{seq:012d}",
        client_msg_id=f"c{seq}",
        project_id=project_id,
        user_id="u",
        content=Content(text or f"text {seq}", "user", "chat", "client"),
        timestamp="2026-01-02T03:04:05.000006Z",
        metadata=NO_METADATA,
    )


def message_entry(seq: int, *, data: bytes | None = None) -> Entry:
    """Return the stream entry of message `seq`."""
    return Entry(EntryId(seq, 0), "message.new", data or encode(message(seq)), 0)


def transient_entry(seq: int, k: int) -> Entry:
    """Return the `k`-th transient entry after message `seq`."""
    data = msgspec.json.encode({"entryId": f"{seq}-{k}", "status": "in_progress"})
    return Entry(EntryId(seq, k), "build.status", data, 0)


def entry(entry_id: EntryId) -> Entry:
    """Return the entry with this id: a message for `n-0`, else a transient entry."""
    return message_entry(entry_id.seq) if entry_id.k == 0 else transient_entry(*entry_id)


def ids_of(frames: Sequence[bytes]) -> list[EntryId]:
    """Read the entry ids back from frames."""
    ids = []
    for frame in frames:
        lines = frame.split(b"\n")
        if lines[2].startswith(b"id: "):
            ids.append(EntryId(int(lines[2][4:]), 0))
        else:
            data = msgspec.json.decode(lines[1].removeprefix(b"data: "))
            ids.append(EntryId.parse(data["entryId"].encode()))
    return ids
