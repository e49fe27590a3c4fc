"""Sends the pieces of one answer in the background, one request at a time.

Which pieces a request has is in `outgoing_pieces.py`, how requests are made and tried again in
`exchange.py`. How the answer begins and ends is in `answering.py`.
"""

from __future__ import annotations

import asyncio
import logging

from service.client.client_answers import Taken
from service.client.client_errors import AnswerStopped, Conflict, ProtocolViolation
from service.client.client_events import decode, encode
from service.client.exchange import Exchange
from service.client.outgoing_pieces import OutgoingPieces

_log = logging.getLogger(__name__)

# Twenty requests a second; of more, the service would hold the responses back.
_EVERY_S = 0.05
# The service gives an answer up after 30 s of silence.
_RENEW_S = 10.0


class AnswerSender:
    """Begins with its creation; `close` ends it. What it raises goes to every writer."""

    def __init__(
        self,
        exchange: Exchange,
        answer_path: str,
        message_id: str,
        *,
        next_index: int,
        timeout_s: float,
    ) -> None:
        self._exchange = exchange
        self._path = f"{answer_path}/deltas"
        self._message_id = message_id
        self._timeout_s = timeout_s
        self._outgoing = OutgoingPieces(next_index)
        self._is_complete = False
        self._added = asyncio.Event()
        self._moved = asyncio.Event()
        self._sending = asyncio.create_task(self._send_all(), name="answer")
        self._sending.add_done_callback(lambda _: self._moved.set())

    async def room(self) -> OutgoingPieces:
        """Wait until something may be added, and return where to.

        Raises:
            AnswerStopped: a member has stopped the answer.
            ClientError: it cannot be written any more.
            RuntimeError: everything was said to be added.
        """
        while True:
            self._moved.clear()
            if self._sending.done():
                self._sending.result()
            if self._is_complete:
                raise RuntimeError("the answer's block has ended")
            if not self._outgoing.is_full:
                # Seen when the caller, who adds without waiting, gives way.
                self._added.set()
                return self._outgoing
            await self._moved.wait()

    async def flush(self) -> None:
        """Wait until the service has taken everything; nothing can be added after it."""
        self._is_complete = True
        self._added.set()
        self._moved.set()
        await asyncio.wait([self._sending])
        self._sending.result()

    async def close(self) -> None:
        """Send nothing any more."""
        self._is_complete = True
        self._moved.set()
        self._sending.cancel()
        await asyncio.wait([self._sending])

    async def _send_all(self) -> None:
        """Send until everything is taken and nothing more comes. Raises what prevents it."""
        loop = asyncio.get_running_loop()
        earliest_s = loop.time()
        while await self._has_to_send():
            await asyncio.sleep(earliest_s - loop.time())
            earliest_s = loop.time() + _EVERY_S
            await self._send()
            self._moved.set()

    async def _has_to_send(self) -> bool:
        """Wait for pieces, or for the time to renew the answer's lease; false at the end."""
        while self._outgoing.is_empty and not self._is_complete:
            self._added.clear()
            try:
                async with asyncio.timeout(_RENEW_S):
                    await self._added.wait()
            except TimeoutError:
                return True
        return not self._outgoing.is_empty

    async def _send(self) -> None:
        index, pieces = self._outgoing.request()
        body = encode({"index": index, "parts": [piece.wire for piece in pieces]})
        try:
            answer = await self._exchange.call(
                "POST", self._path, body=body, timeout_s=self._timeout_s
            )
        except Conflict as error:
            expected = _expected(error)
            # Only backwards, so that this ends.
            if expected is None or expected >= index or not self._outgoing.expect(expected):
                raise
            _log.warning("pieces sent again", extra={"path": self._path, "expected": expected})
            return
        taken = decode(answer, Taken)
        if taken.stop_requested:
            raise AnswerStopped(self._message_id)
        if pieces and taken.next_index == index:
            raise ProtocolViolation("the service took none of an answer's pieces")
        if not self._outgoing.expect(taken.next_index):
            raise Conflict(409, "INDEX_TAKEN", "another program writes this answer")


def _expected(error: Conflict) -> int | None:
    """Return the index that the service expects, of an `INDEX_GAP`."""
    if error.code != "INDEX_GAP" or not isinstance(error.details, dict):
        return None
    expected = error.details.get("expected")
    return expected if isinstance(expected, int) else None
