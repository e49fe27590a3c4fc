"""The answers in the load of a fault: who asks for them, who writes them and who stops them.

What members and writers recorded is judged by `tests/support/answer_checker.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack

from tests.faults.world import World
from tests.support.answer_checker import Recorded
from tests.support.answer_requester import AnswerRequester
from tests.support.answer_stopper import AnswerStopper
from tests.support.history import ClientHistory, LogRow

_REQUESTER = "answer-requester"
_STOPPER = "answer-stopper"
ANSWER_USERS = (_REQUESTER, _STOPPER)


class AnswerLoad:
    """Answers of one project over all service processes; some are stopped by a member."""

    def __init__(
        self, world: World, project_id: str, *, answers_per_s: float, seed: int, impatience: float
    ) -> None:
        urls = world.client_urls
        self.stopper = AnswerStopper(_STOPPER, urls, project_id, seed=seed)
        self.requester = AnswerRequester(
            _REQUESTER,
            urls,
            project_id,
            answers_per_s=answers_per_s,
            script=world.assistant.script,
            on_asked=self.stopper.consider,
            seed=seed,
            impatience=impatience,
        )

    async def start(self, stack: AsyncExitStack) -> None:
        """Begin to ask; `stack` ends everything."""
        stack.push_async_callback(self.stopper.close)
        await stack.enter_async_context(self.requester)

    async def finish(self, *, timeout_s: float) -> list[str]:
        """Ask nothing more, wait until everything was confirmed; return what could not be."""
        finished = await asyncio.gather(
            self.stopper.finish(timeout_s=timeout_s), return_exceptions=True
        )
        return [f"{type(e).__name__}: {e}" for e in finished if isinstance(e, Exception)]

    def recorded(
        self, clients: Sequence[ClientHistory], log: Sequence[LogRow], *, keeps_pieces: bool
    ) -> Recorded:
        """Return everything for the checker."""
        return Recorded(
            requests=self.requester.posts,
            asked=self.requester.asked,
            stops=self.stopper.requests(),
            written=[],
            clients=clients,
            log=log,
            keeps_pieces=keeps_pieces,
        )
