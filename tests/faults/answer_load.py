"""The answers in the load of a fault: who asks for them, who writes them and who stops them.

What members and writers recorded is judged by `tests/support/answer_checker.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack

from tests.faults.world import World
from tests.support.answer_checker import Recorded
from tests.support.answer_history import AskedAnswer
from tests.support.answer_regenerator import AnswerRegenerator
from tests.support.answer_requester import AnswerRequester
from tests.support.answer_stopper import AnswerStopper
from tests.support.history import ClientHistory, LogRow
from tests.support.outside_assistant import OutsideAssistant
from tests.support.persistent_post import RefusedError

_REQUESTER = "answer-requester"
_STOPPER = "answer-stopper"
_REGENERATOR = "answer-regenerator"
_OUTSIDE = "outside-assistant"
ANSWER_USERS = (_REQUESTER, _STOPPER, _REGENERATOR, _OUTSIDE)


class AnswerLoad:
    """Answers of one project over all service processes; some are stopped or asked for again.

    `questions` returns the messages that an assistant outside may answer, the newest last.
    """

    def __init__(
        self,
        world: World,
        project_id: str,
        *,
        answers_per_s: float,
        questions: Callable[[], Sequence[str]],
        seed: int,
        impatience: float,
    ) -> None:
        urls = world.client_urls
        self.stopper = AnswerStopper(_STOPPER, urls, project_id, seed=seed)
        self.regenerator = AnswerRegenerator(
            _REGENERATOR, urls, project_id, seed=seed, on_asked=self.stopper.consider
        )
        self.requester = AnswerRequester(
            _REQUESTER,
            urls,
            project_id,
            answers_per_s=answers_per_s,
            script=world.assistant.script,
            on_asked=self._asked,
            seed=seed,
            impatience=impatience,
        )

        self.outside = OutsideAssistant(
            _OUTSIDE,
            urls,
            project_id,
            next_question=lambda: next(reversed(questions()), None),
            on_begun=self.stopper.consider,
            seed=seed,
        )

    @property
    def asked(self) -> list[AskedAnswer]:
        """Every acknowledgement of an answer."""
        return [*self.requester.asked, *self.regenerator.asked, *self.outside.asked]

    @property
    def count(self) -> int:
        """How many answers were acknowledged."""
        return len({asked.message_id for asked in self.asked})

    def _asked(self, asked: AskedAnswer) -> None:
        self.stopper.consider(asked.message_id)
        self.regenerator.consider(asked)

    async def start(self, stack: AsyncExitStack) -> None:
        """Begin to ask; `stack` ends everything."""
        stack.push_async_callback(self.stopper.close)
        stack.push_async_callback(self.regenerator.close)
        await stack.enter_async_context(self.requester)
        await stack.enter_async_context(self.outside)

    async def finish(self, *, timeout_s: float) -> list[str]:
        """Ask nothing more, wait until everything was confirmed; return what could not be."""
        failures = []
        # In this order: each answer that is begun may be stopped.
        for name, ending in (
            (_OUTSIDE, self.outside.finish),
            (_REGENERATOR, self.regenerator.finish),
            (_STOPPER, self.stopper.finish),
        ):
            try:
                await ending(timeout_s=timeout_s)
            except (AssertionError, RefusedError, TimeoutError) as error:
                failures.append(f"{name}: {type(error).__name__}: {error}")
        return failures

    def recorded(
        self, clients: Sequence[ClientHistory], log: Sequence[LogRow], *, keeps_pieces: bool
    ) -> Recorded:
        """Return everything for the checker."""
        return Recorded(
            requests=self.requester.posts,
            asked=self.asked,
            stops=self.stopper.requests(),
            written=self.outside.written,
            clients=clients,
            log=log,
            keeps_pieces=keeps_pieces,
        )
