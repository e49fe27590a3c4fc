"""Appends transient entries to the window, which is first restored from the log if it was lost.

What the entries mean is the callers' matter (`streams/builds/statuses.py` and others).
"""

from __future__ import annotations

from collections.abc import Sequence

from streams.log.log import Log
from streams.model.build_states import State
from streams.model.errors import PayloadTooLarge
from streams.model.events import encode
from streams.model.ids import EntryId
from streams.model.lru_map import LruMap
from streams.window.window import WINDOW_BYTES, WINDOW_MESSAGES, Run, Window

MAX_DATA_BYTES = 64 * 1024
_MAX_KNOWN = 10_000
_NO_ENTRY = EntryId(0, 0)


class TransientWriter:
    """Appends transient entries.

    It remembers the newest id it appended in each project, so that a stream that was lost does not
    assign the same id again: clients drop entries whose id they have seen.
    """

    def __init__(self, window: Window, log: Log) -> None:
        self._window = window
        self._log = log
        self._newest = LruMap[str, EntryId](_MAX_KNOWN)

    async def append(self, project_id: str, event: str, data: bytes) -> EntryId:
        """Append an entry and return its id.

        Raises:
            PayloadTooLarge: the data is larger than `MAX_DATA_BYTES`.
            ProjectNotFound: the log has no such project.
            WindowUnavailable, LogUnavailable.
        """
        if len(data) > MAX_DATA_BYTES:
            raise PayloadTooLarge("data", MAX_DATA_BYTES)
        newest_known = self._newest_known(project_id)
        head: int | None = None
        while True:
            entry_id = await self._window.append_transient(
                project_id, event, data, head=head, newest_known=newest_known
            )
            if entry_id is not None:
                self._note(project_id, entry_id)
                return entry_id
            head = await self._restored(project_id)

    async def append_states(self, project_id: str, build_id: str, states: Sequence[State]) -> None:
        """Append the states of a build that no process has appended; revisions ascending.

        Raises `WindowUnavailable`, `LogUnavailable`.
        """
        offered = [(state.revision, state.data) for state in states]
        head: int | None = None
        while True:
            ids = await self._window.append_states(
                project_id,
                build_id,
                offered,
                head=head,
                newest_known=self._newest_known(project_id),
            )
            if ids is not None:
                if ids:
                    self._note(project_id, ids[-1])
                return
            head = await self._restored(project_id)

    async def _restored(self, project_id: str) -> int:
        """Put the newest messages of the log into an empty stream; return the log's head.

        A transient entry comes after them: if it were the first entry, the messages before it
        could no longer be appended.
        """
        head = await self._log.head(project_id)
        messages = await self._log.read(
            project_id,
            limit=WINDOW_MESSAGES,
            before=head + 1,
            descending=True,
            max_bytes=WINDOW_BYTES,
        )
        if messages:
            messages.reverse()
            data = [encode(message) for message in messages]
            await self._window.append(Run(project_id, messages[0].seq, data), "restart")
        return head

    def _note(self, project_id: str, entry_id: EntryId) -> None:
        self._newest.put(project_id, max(entry_id, self._newest_known(project_id)))

    def _newest_known(self, project_id: str) -> EntryId:
        return self._newest.peek(project_id) or _NO_ENTRY
