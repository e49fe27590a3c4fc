"""One answer that this process writes: what was written, what of it is stored, how to interrupt it.

When it is stored is in `piece_store.py`, when its lease is renewed in `answer_leases.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from streams.answers.answer_values import Answer
from streams.answers.piece_queue import PieceQueue
from streams.answers.pieces import AnswerText, Piece
from streams.model.events import MAX_TEXT_BYTES


class OpenAnswer:
    """An answer and its pieces. `interrupted` is done once its writer has to end it."""

    def __init__(
        self, answer: Answer, wake: Callable[[], None], *, max_text_bytes: int = MAX_TEXT_BYTES
    ) -> None:
        self.answer = answer
        self.written = AnswerText(max_text_bytes=max_text_bytes)
        self.queue = PieceQueue()
        self.interrupted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # In the loop's time: before it, pieces wait to be joined.
        self.due_s = 0.0
        self._wake = wake
        self._all_stored = asyncio.Event()
        self._all_stored.set()

    def add(self, piece: Piece) -> bool:
        """Add a piece; return False when the text is full, and what did not fit was left out."""
        taken = self.written.take(piece)
        if taken is not None:
            # What waits behind other pieces goes with them, or after them.
            is_first = not self.queue
            self.queue.put(taken)
            self._all_stored.clear()
            if is_first:
                self._wake()
        return not self.written.truncated

    def stored(self, index: int) -> None:
        """Note that a piece was stored."""
        self.queue.stored(index)
        if not self.queue:
            self._all_stored.set()

    async def all_stored(self) -> None:
        """Wait until everything that was added is stored."""
        await self._all_stored.wait()

    def interrupt(self) -> None:
        """End the answer soon, with what was written so far."""
        if not self.interrupted.done():
            self.interrupted.set_result(None)
