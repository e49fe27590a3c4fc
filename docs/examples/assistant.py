"""An assistant outside of the service: it answers the messages of a project, piece by piece.

    SEQSTREAM_URL=… SEQSTREAM_TOKEN=… python docs/examples/assistant.py PROJECT USER

USER is the token's user, a member of the project; the token has the scopes `read worker`. Run one
of these for a project. It echoes: put your model's stream into `complete`. Members may stop an
answer, and ask for another one. Killed in the middle of an answer, it ends that one as failed when
it is started again, and answers what was posted meanwhile, if that is not too long ago.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
import time
from collections import deque
from collections.abc import AsyncGenerator
from datetime import datetime
from typing import NamedTuple

from service.client import AnswerState, Client, ClientError, Event, Message

NEWEST = 50
"""The messages that the model is given, and that a restart looks through."""
MOST_AGE_S = 600
MOST_AT_ONCE = 16


class Turn(NamedTuple):
    """A message of the conversation; `role` is `user` or `assistant`."""

    role: str
    text: str


async def complete(turns: list[Turn]) -> AsyncGenerator[str, None]:
    """Yield the answer to the last turn, piece by piece. With an SDK in the manner of OpenAI's:

    stream = await llm.chat.completions.create(
        model="…", stream=True,
        messages=[{"role": turn.role, "content": turn.text} for turn in turns],
    )
    async with stream:
        async for chunk in stream:
            if chunk.choices and chunk.choices[0].delta.content:
                yield chunk.choices[0].delta.content
    """
    for word in re.findall(r"\s*\S+", f"You said: {turns[-1].text}"):
        await asyncio.sleep(0.01)
        yield word


class Assistant:
    """Answers one project: one answer at a time to each message, several messages at once."""

    def __init__(self, client: Client, project: str, user: str) -> None:
        self._client = client
        self._project = project
        self._user = user
        self._is_live = False
        self._unanswered: dict[str, None] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._written: deque[str] = deque(maxlen=1000)

    async def run(self) -> None:
        """Answer until cancelled; then what is being written ends as failed."""
        try:
            async for event in self._client.follow(self._project, tail=NEWEST):
                await self._take(event)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _take(self, event: Event) -> None:
        if isinstance(event, Message):
            self._note(event)
        elif isinstance(event, AnswerState):
            # Begun for this user, and nothing is written: a member wants the answer once more.
            # It may also be an answer that is begun here at this moment.
            if event.user_id == self._user and event.index == -1:
                await self._begin(event.reply_to, event.message_id)
        elif event.name in ("stream.open", "stream.live"):
            # Before `stream.live` come missed messages, which may be answered further on.
            self._is_live = event.name == "stream.live"
        while self._is_live and self._unanswered:
            reply_to = next(iter(self._unanswered))
            del self._unanswered[reply_to]
            await self._begin(reply_to)

    def _note(self, message: Message) -> None:
        response = message.metadata.get("response_data")
        if isinstance(response, dict):
            self._unanswered.pop(response.get("replyTo", ""), None)
        content = message.content
        age_s = time.time() - datetime.fromisoformat(message.timestamp).timestamp()
        if (content.type, content.mode) != ("user", "chat") or message.user_id == self._user:
            return
        if age_s < MOST_AGE_S:
            self._unanswered[message.message_id] = None
            if len(self._unanswered) > NEWEST:
                del self._unanswered[next(iter(self._unanswered))]

    async def _begin(self, reply_to: str, message_id: str | None = None) -> None:
        while len(self._tasks) >= MOST_AT_ONCE:
            # Until then the stream is not read, which the service bears.
            await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        before = [task for task in self._tasks if task.get_name() == reply_to]
        task = asyncio.create_task(self._answer(reply_to, message_id, before), name=reply_to)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and getattr(error, "code", "") != "ANSWER_ENDED":
            print(f"not answered: {type(error).__name__}", file=sys.stderr)  # noqa: T201

    async def _answer(
        self, reply_to: str, message_id: str | None, before: list[asyncio.Task[None]]
    ) -> None:
        if before:
            await asyncio.wait(before)
        if message_id in self._written:
            return
        writing = (
            # The same id after a restart: what was answered is not answered again.
            self._client.answer(
                self._project, reply_to=reply_to, client_msg_id=f"answer-{reply_to}"
            )
            if message_id is None
            else self._client.answer(self._project, message_id=message_id)
        )
        async with writing as answer:
            self._written.append(answer.message_id)
            if answer.is_continued:
                answer.fail("the assistant was restarted")
            elif turns := await self._turns(reply_to):
                async with contextlib.aclosing(complete(turns)) as pieces:
                    async for piece in pieces:
                        await answer.write(piece)
            else:
                answer.fail("the message is too far back")

    async def _turns(self, reply_to: str) -> list[Turn]:
        """Return the conversation up to a message, which is the last turn."""
        page = await self._client.history(self._project, order="desc", limit=NEWEST)
        turns: list[Turn] = []
        for message in reversed(page.messages):
            if message.content.type in ("user", "assistant") and message.text:
                turns.append(Turn(message.content.type, message.text))
            if message.message_id == reply_to:
                return turns
        return []


async def main(project: str, user: str) -> None:
    """Answer a project until SIGTERM or Ctrl-C."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    async with Client(os.environ["SEQSTREAM_URL"], os.environ["SEQSTREAM_TOKEN"]) as client:
        await Assistant(client, project, user).run()


if __name__ == "__main__":
    try:
        with contextlib.suppress(KeyboardInterrupt, asyncio.CancelledError):
            asyncio.run(main(sys.argv[1], sys.argv[2]))
    except ClientError as error:
        sys.exit(f"error: {error}")
