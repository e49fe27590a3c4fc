"""Stores the pieces of the answers that this process writes, then publishes them.

In this order: what any reader was shown is in the log's tables, whatever becomes of this process.
Pieces of all answers are stored together, of each answer one every 50 ms; what its writer adds
meanwhile is joined.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection, Mapping

from streams.answers.open_answer import OpenAnswer
from streams.answers.piece_publisher import PiecePublisher
from streams.answers.piece_rows import NewPiece, PieceRows
from streams.model.errors import StreamsError, Unavailable
from streams.runtime.backoff import Backoff

_log = logging.getLogger(__name__)

PIECE_EVERY_S = 0.05
# Nobody watches the pieces of an answer that is not streamed; they are kept for its message.
_UNSEEN_EVERY_S = 0.5
_STORE_TIMEOUT_S = 5.0
_RETRY_FIRST_S = 0.1
_RETRY_MOST_S = 1.0


class PieceStore:
    """Stores what `open_answers` have to store, on behalf of `worker_id`, their owner."""

    def __init__(
        self,
        rows: PieceRows,
        publisher: PiecePublisher,
        worker_id: str,
        open_answers: Callable[[], Collection[OpenAnswer]],
    ) -> None:
        self._rows = rows
        self._publisher = publisher
        self._worker_id = worker_id
        self._open = open_answers
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Look for pieces now: one was added."""
        self._wake.set()

    async def run(self) -> None:
        """Store and publish until cancelled. While Postgres is away, pieces wait and are joined."""
        loop = asyncio.get_running_loop()
        backoff = Backoff(first_s=_RETRY_FIRST_S, most_s=_RETRY_MOST_S)
        while True:
            waiting = [each for each in self._open() if each.queue]
            if not waiting:
                await self._wake.wait()
                self._wake.clear()
                # What is added in this turn of the loop goes along.
                await asyncio.sleep(0)
                continue
            now = loop.time()
            due = [each for each in waiting if each.due_s <= now]
            if not due:
                # Another answer may have a piece meanwhile, and be due before these.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(each.due_s for each in waiting) - now):
                        await self._wake.wait()
                self._wake.clear()
                continue
            try:
                async with asyncio.timeout(_STORE_TIMEOUT_S):
                    await self._store(due, now)
                backoff.reset()
            except (Unavailable, TimeoutError):
                await asyncio.sleep(backoff.next_s())

    async def _store(self, due: Collection[OpenAnswer], now: float) -> None:
        cut = [(each, first) for each in due if (first := each.queue.first()) is not None]
        pieces = [NewPiece(each.answer.id, index, piece) for each, (index, piece) in cut]
        try:
            owned = await self._rows.store(pieces, self._worker_id)
        except Unavailable:
            raise
        except StreamsError:
            # One cannot be stored: it must not hold up those of other answers.
            owned = await self._one_by_one(pieces)
        for each, (index, piece) in cut:
            each.due_s = now + (PIECE_EVERY_S if each.answer.is_streamed else _UNSEEN_EVERY_S)
            each.stored(index)
            if each.answer.id not in owned:
                # It ended just now, another process took it over, or the piece cannot be stored.
                each.interrupt()
                continue
            self._publisher.submit(each.answer, index, [piece])
            if owned[each.answer.id] is not None:
                each.interrupt()

    async def _one_by_one(self, pieces: Collection[NewPiece]) -> Mapping[str, str | None]:
        owned: dict[str, str | None] = {}
        for piece in pieces:
            try:
                owned.update(await self._rows.store([piece], self._worker_id))
            except Unavailable:
                raise
            except StreamsError as error:
                _log.warning(
                    "piece refused", extra={"answer_id": piece.answer_id, "error": str(error)}
                )
        return owned
