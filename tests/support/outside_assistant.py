"""An assistant outside the service: it writes answers over HTTP, at any process, with repeats.

Every request is sent until it is answered; some are sent again nevertheless, with pieces that the
service has. `answer_checker.py` judges the records.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import httpx
import msgspec

from tests.support.answer_history import AskedAnswer, Piece, WrittenAnswer
from tests.support.persistent_post import post_until_answered
from tests.support.writer import SPICE

_TIMEOUT_S = 3.0
_REQUESTS_PER_S = 8.0  # the service holds back more than 20
_REPEATED = 0.2
_LOOK_S = 0.05


class _Begun(msgspec.Struct, rename="camel"):
    message_id: str
    next_index: int


class _Taken(msgspec.Struct, rename="camel"):
    stop_requested: bool
    next_index: int


class _Ended(msgspec.Struct):
    status: str


@dataclass
class _Writing:
    """One answer: the pieces that were sent, how many of them were acknowledged, and its end."""

    message_id: str
    reply_to: str
    sent: list[Piece] = field(default_factory=list)
    acknowledged: int = 0
    status: str | None = None


class OutsideAssistant:
    """Writes one answer after another to the messages that `next_question` names.

    `on_begun` is called with each answer's id.
    """

    def __init__(
        self,
        name: str,
        base_urls: Sequence[str],
        project_id: str,
        *,
        next_question: Callable[[], str | None],
        on_begun: Callable[[str], None],
        seed: int,
    ) -> None:
        self.name = name
        self._urls = itertools.cycle(base_urls)
        self._path = f"/v1/projects/{project_id}/answers"
        self._next_question = next_question
        self._on_begun = on_begun
        self._random = random.Random(f"{seed}-{name}")
        self._written: list[_Writing] = []
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name=f"outside-{self.name}")
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    @property
    def asked(self) -> list[AskedAnswer]:
        """The answers that it began, with all text that it tried to send."""
        return [
            AskedAnswer(each.message_id, each.reply_to, "".join(piece.delta for piece in each.sent))
            for each in self._written
        ]

    @property
    def written(self) -> list[WrittenAnswer]:
        """What was acknowledged of each answer."""
        return [
            WrittenAnswer(each.message_id, tuple(each.sent[: each.acknowledged]), each.status)
            for each in self._written
        ]

    async def finish(self, *, timeout_s: float) -> None:
        """Stop after the current answer. Raises TimeoutError, or the error that ended it early."""
        self._stopping.set()
        assert self._task is not None
        async with asyncio.timeout(timeout_s):
            await asyncio.shield(self._task)

    async def _run(self) -> None:
        async with httpx.AsyncClient(verify=False, trust_env=False, timeout=_TIMEOUT_S) as http:
            while not self._stopping.is_set():
                question = self._next_question()
                if question is None:
                    await asyncio.sleep(_LOOK_S)
                else:
                    await self._answer(http, question)

    async def _answer(self, http: httpx.AsyncClient, question: str) -> None:
        number = len(self._written)
        begin = {"replyTo": question, "client_msg_id": f"{self.name}-{number}"}
        begun = msgspec.json.decode(await self._send(http, "", begin), type=_Begun)
        writing = _Writing(begun.message_id, question)
        self._written.append(writing)
        self._on_begun(begun.message_id)
        for size in self._random.choices((1, 2, 5), k=self._random.randrange(3, 10)):
            for _ in range(size):
                writing.sent.append(self._piece(begun.message_id, len(writing.sent)))
            next_s = time.monotonic() + 1 / _REQUESTS_PER_S
            taken = await self._send_pieces(http, writing)
            if taken.stop_requested:
                break
            await asyncio.sleep(max(0.0, next_s - time.monotonic()))
        end = {"status": self._random.choice(("completed", "completed", "completed", "failed"))}
        ended = await self._send(http, f"/{begun.message_id}/end", end)
        writing.status = msgspec.json.decode(ended, type=_Ended).status

    async def _send_pieces(self, http: httpx.AsyncClient, writing: _Writing) -> _Taken:
        """Send what is not acknowledged, sometimes with some of what is."""
        first = writing.acknowledged
        if self._random.random() < _REPEATED:
            first = self._random.randrange(first + 1)
        parts = [
            {"delta": piece.delta} if piece.kind == "text"
            else {"kind": piece.kind, "data": piece.data}
            for piece in writing.sent[first:]
        ]  # fmt: skip
        body = {"index": first, "parts": parts}
        content = await self._send(http, f"/{writing.message_id}/deltas", body)
        taken = msgspec.json.decode(content, type=_Taken)
        # A stop may come before the pieces of this request: only what it counts is acknowledged.
        writing.acknowledged = max(writing.acknowledged, min(taken.next_index, len(writing.sent)))
        return taken

    def _piece(self, message_id: str, index: int) -> Piece:
        words = f"{self.name} {index} {self._random.choice(('', *SPICE))}"
        kind = self._random.choices(("text", "reasoning", "tool", "data"), (12, 3, 1, 1))[0]
        if kind == "text":
            return Piece(message_id, index, kind, delta=words)
        data: dict[str, dict[str, object]] = {
            "reasoning": {"text": words},
            "tool": {"id": "call", "name": "search", "text": words},
            "data": {"index": index, "words": words},
        }
        return Piece(message_id, index, kind, data=data[kind])

    async def _send(self, http: httpx.AsyncClient, path: str, body: object) -> bytes:
        """Post until it is answered; raise `RefusedError` when it is refused for good."""
        response = await post_until_answered(
            http, self._urls, self._path + path, self.name, body, scope="worker"
        )
        return response.content
