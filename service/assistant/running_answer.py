"""One answer that this process writes: its text so far, what of it is stored, how to interrupt it.

Says neither when an answer is stored (`answer_leases.py`) nor what becomes of an interrupted one
(`answer_writer.py`).
"""

from __future__ import annotations

import asyncio

from service.assistant.answer_pieces import AnswerPieces
from streams.answers.answer_values import Answer, Checkpoint


class RunningAnswer:
    """An answer and its pieces. `interrupted` is done once its writer has to end it."""

    def __init__(self, answer: Answer, pieces: AnswerPieces) -> None:
        self.answer = answer
        self.pieces = pieces
        self.interrupted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._stored = 0

    def interrupt(self) -> None:
        """End the answer soon, with the text so far."""
        if not self.interrupted.done():
            self.interrupted.set_result(None)

    def checkpoint(self) -> Checkpoint:
        """Return the text so far, without the text if all of it is stored."""
        text, last_index = self.pieces.so_far()
        if len(text) == self._stored:
            return Checkpoint(self.answer.id, None, None)
        return Checkpoint(self.answer.id, text, last_index)

    def stored(self, checkpoint: Checkpoint) -> None:
        """Note that a checkpoint was stored: a text only grows, so its length identifies it."""
        if checkpoint.text is not None:
            self._stored = len(checkpoint.text)
