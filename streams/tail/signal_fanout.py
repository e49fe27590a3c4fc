"""Signals that lanes received, passed on: ephemeral events to tails, every signal to subscribers.

A signal is not stored anywhere: a process that is not reading when it arrives never gets it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from streams.model import sse
from streams.model.events import EPHEMERAL_EVENTS
from streams.tail.tail import Tail

# More frames than this, received in one turn of the loop, are joined into one.
_FEW_FRAMES = 4

OnNotice = Callable[[str, str, bytes], None]
"""Called with project, event and data of each signal, whether or not the project has a tail."""


class SignalFanout:
    """Passes signals on, to the tails that were added and to the subscribers of notices."""

    def __init__(self) -> None:
        self._tails: dict[str, Tail] = {}
        self._subscribers: list[OnNotice] = []
        # Frames received in this turn of the loop, by project.
        self._received: dict[str, list[bytes]] = {}

    def add(self, tail: Tail) -> None:
        """Pass the ephemeral events of the tail's project on to it."""
        self._tails[tail.project_id] = tail

    def remove(self, tail: Tail) -> None:
        """Pass nothing on to the tail any more."""
        del self._tails[tail.project_id]

    def on_notice(self, callback: OnNotice) -> None:
        """Call `callback` with every signal that this process receives."""
        self._subscribers.append(callback)

    def received(self, project_id: str, event: str, data: bytes) -> None:
        """Pass a signal on: to subscribers now, to the project's tail in the loop's next turn."""
        if project_id in self._tails and event in EPHEMERAL_EVENTS:
            if not self._received:
                asyncio.get_running_loop().call_soon(self._pass_on)
            self._received.setdefault(project_id, []).append(sse.event_frame(event, data))
        for callback in self._subscribers:
            callback(project_id, event, data)

    def _pass_on(self) -> None:
        received, self._received = self._received, {}
        for project_id, frames in received.items():
            tail = self._tails.get(project_id)
            if tail is not None:
                # A crowd that arrives together is one write per connection, not one per event.
                for frame in frames if len(frames) <= _FEW_FRAMES else [b"".join(frames)]:
                    tail.signal(frame)
