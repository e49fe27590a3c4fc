"""A member that has some answers written again once they have ended. `answer_checker.py` judges."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable, Sequence

import httpx
import msgspec

from tests.support.answer_history import AskedAnswer
from tests.support.persistent_post import post_until_answered

_TIMEOUT_S = 3.0
_FIRST_AFTER_S = 0.8  # about the length of an answer: before its end each attempt is refused
_IN_PROGRESS = 409


class _Receipt(msgspec.Struct, rename="camel"):
    message_id: str
    reply_to: str


class AnswerRegenerator:
    """Asks for another answer in place of a share of those that it is told of.

    `on_asked` is called with the id of each answer that was begun.
    """

    def __init__(
        self,
        user_id: str,
        base_urls: Sequence[str],
        project_id: str,
        *,
        seed: int,
        on_asked: Callable[[str], None],
        share: float = 0.3,
    ) -> None:
        self.asked: list[AskedAnswer] = []
        self._user_id = user_id
        self._base_urls = list(base_urls)
        self._project_id = project_id
        self._random = random.Random(f"{seed}-{user_id}")
        self._on_asked = on_asked
        self._share = share
        self._stopping = asyncio.Event()
        self._considered: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def consider(self, asked: AskedAnswer) -> None:
        """Have this answer written again when it has ended, or leave it alone."""
        if asked.message_id in self._considered:
            return
        self._considered.add(asked.message_id)
        if self._random.random() < self._share:
            self._tasks.add(asyncio.create_task(self._regenerate(asked)))

    async def finish(self, *, timeout_s: float) -> None:
        """Begin nothing more, wait until every request was answered.

        Raises the error of one, or TimeoutError.
        """
        self._stopping.set()
        async with asyncio.timeout(timeout_s):
            await asyncio.gather(*self._tasks)

    async def close(self) -> None:
        """Give up what was not answered."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _regenerate(self, before: AskedAnswer) -> None:
        target = f"/v1/projects/{self._project_id}/answers/{before.message_id}/regenerate"
        body = {"client_msg_id": f"again-{before.message_id}"}
        urls = itertools.cycle(self._base_urls)
        try:
            async with asyncio.timeout(_FIRST_AFTER_S):
                await self._stopping.wait()
                return
        except TimeoutError:
            pass
        async with httpx.AsyncClient(verify=False, trust_env=False, timeout=_TIMEOUT_S) as http:
            response = await post_until_answered(
                http, urls, target, self._user_id, body, retry=_IN_PROGRESS
            )
        receipt = msgspec.json.decode(response.content, type=_Receipt)
        self.asked.append(
            AskedAnswer(receipt.message_id, receipt.reply_to, before.intended, before.message_id)
        )
        self._on_asked(receipt.message_id)
