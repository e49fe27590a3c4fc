"""`log.answer(...)`: an answer that user code writes, as an `async with`.

What is written is stored and published in the background (`piece_store.py`); how it ends, and that
it ends at all, is ensured here and, when this process dies, by the others (`answer_leases.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from streams.answers.answer_errors import AnswerHeld, AnswerStopped
from streams.answers.answers import Answers
from streams.answers.open_answer import OpenAnswer
from streams.answers.pieces import PieceKind, part_piece, text_piece

_PATIENCE_S = 5.0


class AnswerWriting:
    """An answer in an `async with`. `message_id` is that of the message it becomes."""

    def __init__(self, opened: OpenAnswer) -> None:
        self._opened = opened
        self.message_id = opened.answer.id
        self.reply_to = opened.answer.reply_to

    @property
    def is_stopped(self) -> bool:
        """Whether the answer was stopped: the next write raises `AnswerStopped`."""
        return self._opened.interrupted.done()

    @property
    def is_full(self) -> bool:
        """Whether the text has reached its bound: what else is written is left out."""
        return self._opened.written.truncated

    async def stopped(self) -> None:
        """Wait until the answer is stopped."""
        await asyncio.shield(self._opened.interrupted)

    async def write(self, text: str) -> None:
        """Add text. Returns before it is stored; adjacent texts may reach readers as one piece.

        Raises:
            AnswerStopped: somebody stopped the answer, or it was taken away.
        """
        self._check()
        self._opened.add(text_piece(text))
        # A writer that has everything at hand lets the pieces go out meanwhile.
        await asyncio.sleep(0)

    async def write_part(self, kind: PieceKind, data: object) -> None:
        """Add a piece of another kind than text: `reasoning`, `tool` or `data`, with JSON data.

        Parts beyond 64 KiB in all are left out.

        Raises:
            InvalidInput, PayloadTooLarge: nothing was added.
            AnswerStopped: somebody stopped the answer, or it was taken away.
        """
        self._check()
        self._opened.add(part_piece(kind, data))
        await asyncio.sleep(0)

    def _check(self) -> None:
        if self.is_stopped:
            raise AnswerStopped("the answer was stopped")


@contextlib.asynccontextmanager
async def writing(
    answers: Answers,
    project_id: str,
    *,
    reply_to: str,
    user_id: str,
    client_msg_id: str | None = None,
) -> AsyncIterator[AnswerWriting]:
    """Begin an answer, and end it with the block; see `EventLog.answer`."""
    begun = await answers.begin_reply(project_id, reply_to, user_id, client_msg_id=client_msg_id)
    if not begun.is_new:
        raise AnswerHeld("the client_msg_id has an answer")
    opened = answers.open(begun.answer)
    reason: str | None = "the answer was interrupted"
    try:
        yield AnswerWriting(opened)
        reason = None
    except AnswerStopped:
        # By a write here; the block has ended as it should.
        pass
    except Exception:
        reason = "the assistant failed"
        raise
    finally:
        await answers.finish(opened, reason=reason, patience_s=_PATIENCE_S)
