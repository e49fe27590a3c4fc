"""Pending appends, and the choice of those that go in one commit. Pure."""

from __future__ import annotations

import asyncio

from streams.log.log import Appended, Unit
from streams.model.errors import StreamsError

MAX_BATCH = 500
"""Messages of one commit; a larger unit has a commit of its own."""

_Key = tuple[str, str, str]


class PendingAppend:
    """A unit to append, the future of its caller, and the deadline on the loop's clock."""

    __slots__ = ("deadline_s", "future", "keys", "size_bytes", "unit")

    def __init__(
        self, unit: Unit, future: asyncio.Future[list[Appended]], deadline_s: float
    ) -> None:
        self.unit = unit
        self.future = future
        self.deadline_s = deadline_s
        self.size_bytes = sum(message.size_bytes for message in unit.messages)
        # The (project, user, client_msg_id) of its messages.
        self.keys: list[_Key] = [
            (unit.project_id, message.source.user_id, message.source.client_msg_id)
            for message in unit.messages
            if message.source.client_msg_id is not None
        ]

    def fail(self, error: StreamsError) -> None:
        """Raise an error in the caller, unless it already has a result or was cancelled."""
        if not self.future.done():
            self.future.set_exception(error)


class Batch:
    """The appends of one commit: at most `MAX_BATCH` messages or one unit, no key twice."""

    def __init__(self) -> None:
        self.appends: list[PendingAppend] = []
        self._keys: set[_Key] = set()
        self._size = 0

    def add(self, append: PendingAppend) -> bool:
        """Add an append; return false, without adding it, when it must go in a later commit."""
        size = len(append.unit.messages)
        if self.appends and self._size + size > MAX_BATCH:
            return False
        if append.keys:
            if not self._keys.isdisjoint(append.keys):
                return False
            self._keys.update(append.keys)
        self._size += size
        self.appends.append(append)
        return True
