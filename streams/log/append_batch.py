"""Appends that wait, and what of them goes in one commit. Pure."""

from __future__ import annotations

import asyncio

from streams.log.log import Appended, Unit
from streams.model.errors import StreamsError

MAX_BATCH = 500

_Key = tuple[str, str, str]


class Waiting:
    """One append under way: its unit, who waits for it and until when, and its ids."""

    __slots__ = ("deadline_s", "future", "keys", "size_bytes", "unit")

    def __init__(
        self, unit: Unit, future: asyncio.Future[list[Appended]], deadline_s: float
    ) -> None:
        self.unit = unit
        self.future = future
        self.deadline_s = deadline_s
        self.size_bytes = sum(message.size_bytes for message in unit.messages)
        self.keys: list[_Key] = [
            (unit.project_id, message.source.user_id, message.source.client_msg_id)
            for message in unit.messages
            if message.source.client_msg_id is not None
        ]

    def fail(self, error: StreamsError) -> None:
        """Tell whoever waits, if anybody still does."""
        if not self.future.done():
            self.future.set_exception(error)


class Batch:
    """What goes in one commit: at most `MAX_BATCH` messages, or one unit; no id twice."""

    def __init__(self) -> None:
        self.appends: list[Waiting] = []
        self._keys: set[_Key] = set()
        self._size = 0

    def add(self, waiting: Waiting) -> bool:
        """Take one more append; false, and nothing taken, when it must wait for the next commit."""
        size = len(waiting.unit.messages)
        if self.appends and self._size + size > MAX_BATCH:
            return False
        if waiting.keys:
            if not self._keys.isdisjoint(waiting.keys):
                return False
            self._keys.update(waiting.keys)
        self._size += size
        self.appends.append(waiting)
        return True
