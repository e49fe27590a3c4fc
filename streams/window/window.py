"""The window: the newest messages of a project and its transient entries, in its Redis Stream.

Every write goes through a script (`lua/`), which keeps the messages a contiguous run. Filling a
hole is the caller's duty (`publisher.py`).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Literal

import msgspec

from streams.model.errors import WindowUnavailable
from streams.model.events import Message, encode
from streams.model.ids import EntryId
from streams.runtime.observer import Observer
from streams.window import keys
from streams.window.entries import Entry as Entry
from streams.window.entries import SkippedEntries, parse_entries
from streams.window.lua import script
from streams.window.redis_client import Argument, RedisClient
from streams.window.survey import WindowSurvey, read_survey

WINDOW_MESSAGES = 200
MAX_ENTRIES = 1200
# Bound on messages and transient entries together, approximate: a stream that large entries bring
# above it is cut to three quarters of it.
WINDOW_BYTES = 4 * 1024 * 1024
IDLE_EXPIRY_MS = 7 * 24 * 3600 * 1000

How = Literal["append", "restart", "replace"]
Status = Literal["ok", "hole", "diverged"]


def message_entries(messages: Sequence[Message]) -> list[Entry]:
    """Return messages of the log as entries of the stream, published now."""
    at_us = _now_us()
    return [
        Entry(EntryId(message.seq, 0), "message.new", encode(message), at_us)
        for message in messages
    ]


class Run(msgspec.Struct, frozen=True):
    """Consecutive committed messages of one project, ready to be published."""

    project_id: str
    first: int
    data: list[bytes]


class AppendResult(msgspec.Struct, frozen=True):
    """The reply of the append script; `hi` is the stream's last message number, 0: none."""

    status: Status
    hi: int


class Window:
    """Reads and writes of the projects' streams. Every call may raise `WindowUnavailable`."""

    def __init__(self, client: RedisClient, skipped: SkippedEntries | None = None) -> None:
        self._client = client
        self._skipped = skipped or SkippedEntries(Observer())

    async def append(self, run: Run, how: How = "append") -> AppendResult:
        """Append one run; a repeat is a no-op."""
        (result,) = await self.append_all([run], how)
        if isinstance(result, WindowUnavailable):
            raise result
        return result

    async def append_all(
        self, runs: Sequence[Run], how: How = "append"
    ) -> list[AppendResult | WindowUnavailable]:
        """Append many runs in one round trip, each with its own result.

        A run that fills the window cannot leave a hole.
        """
        now_us = _now_us()
        calls: list[tuple[str, Sequence[Argument]]] = []
        for run in runs:
            is_whole = how == "append" and len(run.data) >= WINDOW_MESSAGES
            head = (WINDOW_MESSAGES, IDLE_EXPIRY_MS, "restart" if is_whole else how, now_us)
            arguments = (*head, WINDOW_BYTES, run.first, *run.data)
            calls.append((keys.stream(run.project_id), arguments))
        replies = await self._client.run_all(script("append"), calls)
        return [
            reply
            if isinstance(reply, WindowUnavailable)
            else AppendResult(reply[0].decode(), int(reply[1]))
            for reply in replies
        ]

    async def append_transient(
        self, project_id: str, event: str, data: bytes, *, head: int | None, newest_known: EntryId
    ) -> EntryId | None:
        """Append a transient entry and return its id, which is also written to its data as entryId.

        `head` is the log's head. An empty stream needs it: without it nothing is written and None
        is returned. `newest_known` is the newest id that the caller appended in this project, so
        that a stream that was lost does not repeat it.
        """
        ids = await self._client.run(
            script("append_transient"),
            keys.stream(project_id),
            *_transient_head(head, newest_known, event),
            *("", "", 0, data),
        )
        return None if ids is None else EntryId.parse(ids[0])

    async def append_states(
        self,
        project_id: str,
        build_id: str,
        states: Sequence[tuple[int, bytes]],
        *,
        head: int | None,
        newest_known: EntryId,
    ) -> list[EntryId] | None:
        """Append the (revision, data) pairs of a build that no process appended before.

        Returns their ids. `head`, `newest_known` and None are as for `append_transient`.
        """
        ids = await self._client.run(
            script("append_transient"),
            keys.stream(project_id),
            *_transient_head(head, newest_known, "build.status"),
            *(keys.build_revisions(project_id), build_id),
            *(argument for state in states for argument in state),
        )
        return None if ids is None else [EntryId.parse(raw) for raw in ids]

    async def last_id(self, project_id: str) -> EntryId | None:
        """Return the id of the newest entry; None when the stream is empty."""
        reply = await self._client.call("XREVRANGE", keys.stream(project_id), "+", "-", "COUNT", 1)
        return EntryId.parse(reply[0][0]) if reply else None

    async def read_after(self, project_id: str, after: EntryId, *, count: int) -> list[Entry]:
        """Return at most `count` entries after `after`, oldest first.

        The stream may lack what follows `after`: see `covers`.
        """
        key = keys.stream(project_id)
        reply = await self._client.call("XRANGE", key, f"({after}", "+", "COUNT", count)
        return parse_entries(key.encode(), reply, self._skipped)

    async def survey(
        self, project_id: str, *, newest: int, after: EntryId | None = None
    ) -> WindowSurvey:
        """Return the ids of at most `newest` entries, the last ones, without their data."""
        start = "-" if after is None else f"({after}"
        reply = await self._client.run(script("survey"), keys.stream(project_id), start, newest)
        return read_survey(reply)

    async def discard(self, project_id: str) -> None:
        """Delete a project's stream. The log has all its messages."""
        await self._client.call("DEL", keys.stream(project_id))

    async def server(self) -> tuple[str, str]:
        """Return the server's version and its `maxmemory-policy`."""
        info = (await self._client.call("INFO", "everything")).items()
        found = {str(name): str(value) for name, value in info}
        return found.get("redis_version", "0"), found.get("maxmemory_policy", "noeviction")

    async def ping(self) -> None:
        """Raise `WindowUnavailable` when Redis does not answer."""
        await self._client.call("PING")


def covers(entries: Sequence[Entry], after: EntryId, head: int) -> bool:
    """Tell whether entries read after `after` include every message after it up to `head`.

    They do when their messages go from `after.seq + 1` to at least `head` without a hole.
    """
    expected = after.seq + 1
    for entry in entries:
        if entry.id.k == 0:
            if entry.id.seq != expected:
                return False
            expected += 1
        elif entry.id.seq != expected - 1:
            # The message before this transient entry is missing.
            return False
    return expected > head


def _transient_head(head: int | None, newest_known: EntryId, event: str) -> tuple[str | int, ...]:
    known = (newest_known.seq, newest_known.k)
    start = "" if head is None else head
    return IDLE_EXPIRY_MS, _now_us(), start, *known, MAX_ENTRIES, WINDOW_BYTES, event


def _now_us() -> int:
    return time.time_ns() // 1000
