"""Group commit: appends that arrive while a commit is under way go together in the next one.

A lone append waits for nothing. After a commit of several, the next one waits a few milliseconds
for as many again: callers that wait for their answers are back by then and wait no longer, and a
steady rate gives fewer, larger commits (`committer.py`). Each committer has its own projects, so
that several commits are in flight at once and the messages of one project are published in order.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable, Sequence

from streams.log.committer import Committer, Publish
from streams.log.log import Appended, Log, Unit
from streams.model.errors import Closed, IdempotencyMismatch
from streams.model.events import NewMessage, PreparedMessage, prepare
from streams.runtime.observer import Observer

# Texts and metadata of the appends that wait and that are being committed.
MAX_HELD_BYTES = 64 * 1024 * 1024
TIMEOUT_S = 5.0


class Appender:
    """Appends messages to the log and hands what was committed to `publish`.

    `before_publish` is called with the number of commits so far, after a commit and before its
    publishing: a fault point for tests.
    """

    def __init__(
        self,
        log: Log,
        publish: Publish,
        observer: Observer,
        *,
        committers: int = 2,
        timeout_s: float = TIMEOUT_S,
        before_publish: Callable[[int], None] | None = None,
    ) -> None:
        self._committers = [
            Committer(
                log,
                publish,
                observer,
                timeout_s=timeout_s,
                max_bytes=MAX_HELD_BYTES // committers,
                before_publish=before_publish,
            )
            for _ in range(committers)
        ]
        self._closed = False

    def submit(
        self, project_id: str, message: NewMessage, *, deadline_s: float | None = None
    ) -> asyncio.Future[list[Appended]]:
        """Begin to append one message; the future is done when it is committed.

        Raises `InvalidInput`, `PayloadTooLarge`, `LogUnavailable` and `Overloaded` at once; see
        `append`.
        """
        unit = Unit(project_id, (prepare(message),))
        return self._committer(project_id).submit(unit, deadline_s)

    async def append(
        self, project_id: str, messages: Sequence[NewMessage], *, deadline_s: float | None = None
    ) -> list[Appended]:
        """Append messages in order, all or none; return when they are committed.

        The commit goes on when the caller is cancelled. Repeats of a client_msg_id, within the
        batch too, give the first result. At `deadline_s`, a time of the loop's clock (none: the
        appender's timeout from now), who waits is told that the outcome is unknown.

        Raises:
            InvalidInput, PayloadTooLarge: before anything is written.
            IdempotencyMismatch: a client_msg_id stands for another content; nothing is written.
            ProjectNotFound: there is no such project.
            LogUnavailable: Postgres does not answer; the outcome is unknown.
            Overloaded: too many appends wait in this process.
        """
        if len(messages) == 1:
            return await self.submit(project_id, messages[0], deadline_s=deadline_s)
        committer = self._committer(project_id)
        unit, places = _distinct(project_id, [prepare(message) for message in messages])
        if not unit.messages:
            return []
        appended = await committer.submit(unit, deadline_s)
        if len(places) == len(appended):
            return appended
        seen: set[int] = set()
        results = []
        for place in places:
            first = appended[place]
            results.append(Appended(first.message, True) if place in seen else first)
            seen.add(place)
        return results

    async def run(self) -> None:
        """Commit for ever."""
        async with asyncio.TaskGroup() as group:
            for committer in self._committers:
                group.create_task(committer.run())

    async def drained(self) -> None:
        """Refuse new appends and wait until those under way are committed."""
        self._closed = True
        for committer in self._committers:
            await committer.drained()

    def _committer(self, project_id: str) -> Committer:
        if self._closed:
            raise Closed("the log is closed")
        return self._committers[zlib.crc32(project_id.encode()) % len(self._committers)]


def _distinct(project_id: str, prepared: Sequence[PreparedMessage]) -> tuple[Unit, list[int]]:
    """Take repeats within a batch out; give each message its place among those that are left."""
    first: dict[tuple[str, str], int] = {}
    kept: list[PreparedMessage] = []
    places = []
    for index, message in enumerate(prepared):
        client_msg_id = message.source.client_msg_id
        if client_msg_id is not None:
            key = (message.source.user_id, client_msg_id)
            place = first.setdefault(key, len(kept))
            if place < len(kept):
                if kept[place].digest != message.digest:
                    raise IdempotencyMismatch(client_msg_id, index=index)
                places.append(place)
                continue
        places.append(len(kept))
        kept.append(message)
    return Unit(project_id, tuple(kept)), places
