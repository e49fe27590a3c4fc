"""Parses entries of Redis Streams; skips and counts those that this service did not write.

Other programs with access to Redis can put anything into a stream. Such an entry must not end a
lane, reach a client, or stop a project from being read. Pure, apart from the count and the log
line.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from streams.model.ids import MAX_SEQ, EntryId
from streams.model.lru_map import LruMap
from streams.runtime.observer import Observer

_log = logging.getLogger(__name__)

_REMEMBERED_KEYS = 1000
_ENTRY_FIELDS = [b"event", b"data", b"at"]
_SIGNAL_FIELDS = [b"project", b"event", b"data"]
# A state of an answer comes from the log or as a signal: here it could hide the answer's pieces.
_NEVER_TRANSIENT = frozenset({b"message.new", b"answer.state"})
_EVENT = re.compile(rb"[a-z0-9_.]{1,64}\Z")
# Checks the text without building objects.
_json = msgspec.json.Decoder(msgspec.Raw)

RawEntry = Sequence[Any]
"""Id and fields: `[id, [field, value, …]]`; fields are None where the entry was deleted."""


class Entry(msgspec.Struct, frozen=True):
    """An entry of a project's stream: a message (k = 0) or a transient entry.

    `at_us` is when it was published, unix time in microseconds.
    """

    id: EntryId
    event: str
    data: bytes
    at_us: int


class Signal(msgspec.Struct, frozen=True):
    """An entry of a shard's signals: an ephemeral event or a notice."""

    project_id: str
    event: str
    data: bytes


class SkippedEntries:
    """Counts entries of other writers; each stream is logged once."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._logged = LruMap[bytes, None](_REMEMBERED_KEYS)

    def skipped(self, key: bytes, count: int) -> None:
        """Count skipped entries of a stream."""
        self._observer.entries_skipped(count)
        if key not in self._logged:
            _log.warning(
                "skipped entries that no writer of this service makes",
                extra={"key": key.decode("utf-8", "replace"), "entries": count},
            )
            self._logged.put(key, None)


def parse_entries(
    key: bytes, raw_entries: Sequence[RawEntry], skipped: SkippedEntries
) -> list[Entry]:
    """Return the entries of a project's stream that are messages or transient entries."""
    entries = []
    foreign = 0
    for raw_id, fields in raw_entries:
        # Redis before 7 may return deleted entries without fields.
        if fields:
            entry = _entry(raw_id, fields)
            if entry is None:
                foreign += 1
            else:
                entries.append(entry)
    if foreign:
        skipped.skipped(key, foreign)
    return entries


def parse_signals(
    key: bytes, raw_entries: Sequence[RawEntry], skipped: SkippedEntries
) -> Iterator[Signal]:
    """Yield the signals among the entries of a shard's stream of signals."""
    foreign = 0
    for _, fields in raw_entries:
        if fields:
            signal = _signal(fields)
            if signal is None:
                foreign += 1
            else:
                yield signal
    if foreign:
        skipped.skipped(key, foreign)


def _entry(raw_id: bytes, fields: Sequence[bytes]) -> Entry | None:
    if fields[::2] != _ENTRY_FIELDS or len(fields) != 6:
        return None
    event, data, at = fields[1::2]
    entry_id = EntryId.parse(raw_id)
    seq, k = entry_id
    if k == 0:
        is_ours = event == b"message.new"
    else:
        # The script that assigns the id also writes it into the data, where clients read it.
        is_ours = (
            event not in _NEVER_TRANSIENT
            and _EVENT.match(event) is not None
            and data.startswith(b'{"entryId":"%d-%d"' % entry_id)
        )
    if not (is_ours and seq <= MAX_SEQ and k <= MAX_SEQ and at.isdigit() and _is_object(data)):
        return None
    return Entry(entry_id, event.decode(), data, int(at[:18]))


def _signal(fields: Sequence[bytes]) -> Signal | None:
    if fields[::2] != _SIGNAL_FIELDS or len(fields) != 6:
        return None
    project, event, data = fields[1::2]
    if not (project.isascii() and _EVENT.match(event) and _is_line(data)):
        return None
    return Signal(project.decode(), event.decode(), data)


def _is_object(data: bytes) -> bool:
    """Tell whether the data is a JSON object on one line, as an SSE frame needs."""
    if data[:1] != b"{" or not _is_line(data):
        return False
    try:
        _json.decode(data)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def _is_line(data: bytes) -> bool:
    if b"\n" in data or b"\r" in data:
        return False
    try:
        str(data, "utf-8")
    except UnicodeDecodeError:
        return False
    return True
