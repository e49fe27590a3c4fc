"""The text of one answer while it is written, and its pieces on the way to the project's stream.

Bounds the text and sends `message.delta` entries. How an answer ends is in `answer_writer.py`.
"""

from __future__ import annotations

import asyncio
from collections import deque

import msgspec

from streams.answers.answer_values import Answer
from streams.eventlog import EventLog
from streams.model.errors import StreamsError
from streams.model.events import MAX_TEXT_BYTES, encode, format_now
from streams.runtime.backoff import Backoff

DELTA_EVERY_S = 0.05
# JSON escapes make a piece at most six times as long: still within the bound on a transient entry.
_DELTA_CHARACTERS = 8000
_RETRY_FIRST_S = 0.25
_RETRY_MOST_S = 1.0
_FINISH_TIMEOUT_S = 1.5


class _DeltaContent(msgspec.Struct, rename="camel"):
    message_id: str
    index: int
    delta: str


class _Delta(msgspec.Struct, rename="camel"):
    project_id: str
    user_id: str
    content: _DeltaContent
    timestamp: str


class AnswerPieces:
    """Collects the text of an answer; with `stream`, sends it to the stream piece by piece.

    A piece that could not be appended is retried unchanged, because readers drop repeats by index.
    """

    def __init__(
        self,
        log: EventLog,
        answer: Answer,
        *,
        stream: bool,
        max_text_bytes: int = MAX_TEXT_BYTES,
    ) -> None:
        self.text = ""
        self.truncated = False
        self._size_bytes = 0
        self._max_text_bytes = max_text_bytes
        self._log = log
        self._answer = answer
        # Of the text so far: where the pieces end that were appended and that were cut, the ends of
        # the pieces between, and the index of the first of those.
        self._sent = 0
        self._cut = 0
        self._ends: deque[int] = deque()
        self._index = 0
        self._wake = asyncio.Event()
        self._is_complete = False
        self._sending = asyncio.create_task(self._send(), name="deltas") if stream else None

    def add(self, piece: str) -> bool:
        """Add a piece; return False when the text is full."""
        piece = piece.replace("\x00", "").encode("utf-8", "replace").decode()
        room = self._max_text_bytes - self._size_bytes
        encoded = piece.encode()
        if len(encoded) > room:
            piece = encoded[:room].decode("utf-8", "ignore")
            self.truncated = True
        self._size_bytes += len(piece.encode())
        self.text += piece
        self._wake.set()
        return not self.truncated

    def so_far(self) -> tuple[str, int | None]:
        """Return the text so far and the index of the piece that it ends with.

        The pieces that follow have a higher index: one ends here, even if it waits to be sent.
        None when no pieces are sent, or there is no text yet.
        """
        if self._sending is None:
            return self.text, None
        self._cut_pieces()
        last = self._index + len(self._ends) - 1
        return self.text, last if last >= 0 else None

    async def finish(self, interrupted: asyncio.Future[None]) -> None:
        """Wait a moment for unsent pieces; the message will have the whole text anyway."""
        self._is_complete = True
        self._wake.set()
        if self._sending is not None:
            await asyncio.wait(
                [self._sending, interrupted],
                timeout=_FINISH_TIMEOUT_S,
                return_when=asyncio.FIRST_COMPLETED,
            )

    def close(self) -> None:
        """Stop sending."""
        if self._sending is not None:
            self._sending.cancel()

    def _cut_pieces(self) -> None:
        while self._cut < len(self.text):
            self._cut = min(len(self.text), self._cut + _DELTA_CHARACTERS)
            self._ends.append(self._cut)

    async def _send(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._sent < len(self.text):
                if not self._ends:
                    self._cut_pieces()
                await self._send_until_appended(self.text[self._sent : self._ends[0]])
                self._sent = self._ends.popleft()
                self._index += 1
                if not self._is_complete:
                    await asyncio.sleep(DELTA_EVERY_S)
            if self._is_complete:
                return

    async def _send_until_appended(self, delta: str) -> None:
        content = _DeltaContent(self._answer.id, self._index, delta)
        backoff = Backoff(first_s=_RETRY_FIRST_S, most_s=_RETRY_MOST_S)
        while True:
            data = encode(
                _Delta(self._answer.project_id, self._answer.user_id, content, format_now())
            )
            try:
                await self._log.append_transient(self._answer.project_id, "message.delta", data)
            except StreamsError:
                # Redis is probably away: the message at the end has the whole text.
                await asyncio.sleep(backoff.next_s())
            else:
                return
