"""Group commit: appends that arrive during a commit go together in the next one.

A single append is committed at once. After a commit of several, the next commit waits a few
milliseconds for as many again (`committer.py`): callers that send their next message after each
answer have sent it by then, and a steady rate gives fewer and larger commits. Each committer has
its own projects: several commits run at once, and a project's messages are published in order.
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

# Texts and metadata of all appends that are queued or being committed.
MAX_HELD_BYTES = 64 * 1024 * 1024
TIMEOUT_S = 5.0


class Appender:
    """Appends messages to the log and passes the committed ones to `publish`.

    `before_publish` is a fault point for tests: it is called between a commit and its publishing,
    with the number of commits so far.
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
        """Start to append one message; the future is done when it is committed.

        The call itself raises `InvalidInput`, `PayloadTooLarge`, `LogUnavailable`, `Overloaded`
        and `Closed`; the future has the other errors of `append`.
        """
        unit = Unit(project_id, (prepare(message),))
        return self._committer(project_id).submit(unit, deadline_s)

    async def append(
        self, project_id: str, messages: Sequence[NewMessage], *, deadline_s: float | None = None
    ) -> list[Appended]:
        """Append messages in order, all or none; return when they are committed.

        A cancelled caller does not stop the commit. A repeat of a client_msg_id, also within the
        batch, gets the first result. `deadline_s` is on the loop's clock; by default it is the
        appender's timeout from now.

        Raises:
            InvalidInput, PayloadTooLarge: a message breaks a rule; nothing is written.
            IdempotencyMismatch: a client_msg_id belongs to another content; nothing is written.
            ProjectNotFound: there is no such project.
            LogUnavailable: no answer from Postgres by the deadline; the outcome is unknown.
            Overloaded: too many appends wait in this process; nothing is written.
            Closed: `drained` was called.
        """
        if len(messages) == 1:
            return await self.submit(project_id, messages[0], deadline_s=deadline_s)
        committer = self._committer(project_id)
        unit, positions = _without_repeats(project_id, [prepare(message) for message in messages])
        if not unit.messages:
            return []
        appended = await committer.submit(unit, deadline_s)
        if len(positions) == len(appended):
            return appended
        return _with_repeats(appended, positions)

    async def run(self) -> None:
        """Commit until cancelled."""
        async with asyncio.TaskGroup() as group:
            for committer in self._committers:
                group.create_task(committer.run())

    async def drained(self) -> None:
        """Refuse new appends and wait until those under way are committed or have failed."""
        self._closed = True
        for committer in self._committers:
            await committer.drained()

    def _committer(self, project_id: str) -> Committer:
        if self._closed:
            raise Closed("the log is closed")
        return self._committers[zlib.crc32(project_id.encode()) % len(self._committers)]


def _without_repeats(
    project_id: str, prepared: Sequence[PreparedMessage]
) -> tuple[Unit, list[int]]:
    """Return a unit without the batch's repeats, and each message's position in that unit."""
    first: dict[tuple[str, str], int] = {}
    kept: list[PreparedMessage] = []
    positions = []
    for index, message in enumerate(prepared):
        client_msg_id = message.source.client_msg_id
        if client_msg_id is not None:
            key = (message.source.user_id, client_msg_id)
            position = first.setdefault(key, len(kept))
            if position < len(kept):
                if kept[position].digest != message.digest:
                    raise IdempotencyMismatch(client_msg_id, index=index)
                positions.append(position)
                continue
        positions.append(len(kept))
        kept.append(message)
    return Unit(project_id, tuple(kept)), positions


def _with_repeats(appended: Sequence[Appended], positions: Sequence[int]) -> list[Appended]:
    """Return the results of a whole batch: a repeat has that of the first, as a duplicate."""
    seen: set[int] = set()
    results = []
    for position in positions:
        first = appended[position]
        results.append(Appended(first.message, True) if position in seen else first)
        seen.add(position)
    return results
