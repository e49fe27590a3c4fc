"""One long answer, and many clients that come, go and join while it is written.

What happens to it meanwhile is up to `test_long_answer.py`; the records are judged by
`tests/support/answer_checker.py`.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import msgspec

from tests.faults.world import World
from tests.support.answer_checker import Recorded, check_answers
from tests.support.answer_history import AskedAnswer, StopRequest
from tests.support.api import Api
from tests.support.history import ClientHistory, LogRow, Post
from tests.support.paced_assistant import Sending
from tests.support.signing import token
from tests.support.sse_client import SseClient
from tests.support.violations import Violation
from tests.support.waiting import wait_until

ASKER = "asker"
PIECES_PER_S = 100.0
_STREAMS_OF_A_READER = 3
_END_TIMEOUT_S = 60.0
_QUESTION = "Tell me everything"
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Length:
    """How many clients read, and how many pieces of how many bytes the answer has."""

    services: int
    clients: int
    pieces: int
    piece_bytes: int = 16

    @property
    def duration_s(self) -> float:
        """How long the assistant writes."""
        return self.pieces / PIECES_PER_S

    def script(self, _: str) -> list[str]:
        """Return pieces that differ, of `piece_bytes` bytes each, not all of them ASCII."""
        return [f"{n:05d} é漢".ljust(self.piece_bytes - 4) + "\n" for n in range(self.pieces)]


class _Receipt(msgspec.Struct, rename="camel"):
    message_id: str
    assistant_message_id: str


class _StopReceipt(msgspec.Struct):
    status: str = ""


@dataclass
class Reader:
    """One reader over all its visits; it keeps its cursor, as a page that stays open does."""

    name: str
    visits: list[SseClient] = field(default_factory=list)

    @property
    def history(self) -> ClientHistory:
        """Everything that it received."""
        connections = tuple(c for visit in self.visits for c in visit.history().connections)
        return ClientHistory(self.name, self.visits[0].project_id, connections)

    def message(self, message_id: str) -> tuple[str, float] | None:
        """Return the text of the message of this id, and when it arrived; None before."""
        for visit in self.visits:
            for event in visit.events("message.new", "message.replay"):
                data = msgspec.json.decode(event.data)
                if data["messageId"] == message_id:
                    return data["content"]["text"], event.at_s
        return None


class LongAnswer:
    """An answer in a project of its own. `async with` starts its readers and asks for it.

    The process `world.services[0]` writes it. Readers stay from before the question, join late, or
    leave and come back with their cursor; without `late` all of them stay.
    """

    def __init__(self, world: World, length: Length, *, seed: int, late: bool = True) -> None:
        self.world = world
        self.length = length
        self.project_id = f"Long_answer-{next(_numbers)}"
        self.readers: list[Reader] = []
        self.asked = AskedAnswer("", "", "".join(length.script("")))
        self.stops: list[StopRequest] = []
        self.log: list[LogRow] = []
        self._late = late
        self._random = random.Random(seed)
        self._stack = AsyncExitStack()
        self._visiting: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> LongAnswer:
        self.world.assistant.script = self.length.script
        self.world.assistant.pieces_per_s = PIECES_PER_S
        self.world.assistant.thinks_every = 0
        self.world.assistant.sendings.clear()
        async with AsyncExitStack() as stack:
            api = await stack.enter_async_context(Api(self.world.services[0].url, ASKER))
            await api.create_project(self.project_id)
            users = self._users()
            for user_id in {next(users) for _ in range(self.length.clients)}:
                await api.add_member(self.project_id, user_id)
            stack.push_async_callback(self._close)
            await self._start_readers()
            body = {"projectId": self.project_id, "message": _QUESTION, "client_msg_id": "q"}
            response = await api.request(
                "POST", "/v1/chat/unified", body | {"mode": "plan", "stream": True}
            )
            receipt = msgspec.json.decode(response.raise_for_status().content, type=_Receipt)
            self.asked = AskedAnswer(
                receipt.assistant_message_id, receipt.message_id, self.asked.intended
            )
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    @property
    def sending(self) -> Sending:
        """What the assistant's endpoint has sent; nothing before its request came."""
        sendings = self.world.assistant.sendings
        return sendings[-1] if sendings else Sending(_QUESTION)

    async def wait_written(self, share: float) -> None:
        """Wait until the endpoint has sent a share of the answer."""
        wanted = int(len(self.asked.intended) * share)
        await wait_until(
            lambda: bool(self.sending.characters) and self.sending.characters[-1] >= wanted,
            timeout_s=_END_TIMEOUT_S + self.length.duration_s,
            what=f"{share:.0%} of the answer",
        )

    async def stop(self, service: int = -1) -> float:
        """Stop the answer at a service process; return when that was requested."""
        async with Api(self.world.services[service].url, ASKER) as api:
            requested_s = time.monotonic()
            path = f"/v1/projects/{self.project_id}/answers/{self.asked.message_id}/stop"
            response = await api.request("POST", path)
        # Stopped: its writer heard of the stop, and ended it, before the response.
        status = msgspec.json.decode(response.content, type=_StopReceipt).status
        assert status in ("stopping", "stopped"), response.text
        self.stops.append(StopRequest(self.asked.message_id, ASKER, accepted=True))
        return requested_s

    async def finish(self) -> list[Violation]:
        """Wait until every reader has the message; return what is wrong."""
        await asyncio.gather(*self._visiting)
        await wait_until(
            lambda: all(each.message(self.asked.message_id) for each in self.readers),
            timeout_s=_END_TIMEOUT_S + self.length.duration_s,
            what="the message at every reader",
        )
        async with Api(self.world.services[-1].url, ASKER) as api:
            self.log = await api.log(self.project_id)
        return check_answers(
            Recorded(
                requests=[Post(self.project_id, ASKER, "q", _QUESTION)],
                asked=[self.asked],
                stops=self.stops,
                written=[],
                clients=[reader.history for reader in self.readers],
                log=self.log,
                keeps_pieces=False,
            )
        )

    @property
    def end(self) -> LogRow:
        """The message that the answer became."""
        (row,) = (row for row in self.log if row.answer_end is not None)
        return row

    def arrivals_s(self) -> list[float]:
        """Return when the message arrived at each reader."""
        found = [reader.message(self.asked.message_id) for reader in self.readers]
        return [at_s for each in found if each is not None for at_s in (each[1],)]

    def texts(self) -> set[str]:
        """Return the texts that readers ended with."""
        found = [reader.message(self.asked.message_id) for reader in self.readers]
        return {"" if each is None else each[0] for each in found}

    def _users(self) -> Iterator[str]:
        count = self.length.clients // _STREAMS_OF_A_READER + 1
        return itertools.cycle([f"reader-{number}" for number in range(count)])

    async def _start_readers(self) -> None:
        kinds = [self._stay]
        if self._late:
            kinds += [self._join_late, self._come_and_go]
        early = []
        for number, user_id in zip(range(self.length.clients), self._users(), strict=False):
            reader = Reader(f"reader-{number}")
            self.readers.append(reader)
            read = kinds[number % len(kinds)]
            self._visiting.append(asyncio.create_task(read(reader, token(user_id))))
            if read != self._join_late:
                early.append(reader)

        def all_live() -> bool:
            return all(reader.visits and reader.visits[0].live for reader in early)

        await wait_until(all_live, timeout_s=_END_TIMEOUT_S, what="the readers' streams")

    async def _stay(self, reader: Reader, bearer: str) -> None:
        await self._visit(reader, bearer, from_seq=0)

    async def _join_late(self, reader: Reader, bearer: str) -> None:
        await asyncio.sleep(self._random.uniform(0.1, 0.9) * self.length.duration_s)
        await self._visit(reader, bearer, from_seq=0)

    async def _come_and_go(self, reader: Reader, bearer: str) -> None:
        for _ in range(3):
            visit = await self._visit(reader, bearer, from_seq=None)
            await asyncio.sleep(self._random.uniform(0.1, 0.3) * self.length.duration_s)
            await visit.close()
            await asyncio.sleep(self._random.uniform(0.0, 0.1) * self.length.duration_s)
        await self._visit(reader, bearer, from_seq=0)

    async def _visit(self, reader: Reader, bearer: str, *, from_seq: int | None) -> SseClient:
        visit = SseClient(
            reader.name,
            self.world.client_urls,
            self.project_id,
            bearer,
            from_seq=from_seq,
            first_url=self._random.randrange(len(self.world.services)),
        )
        if reader.visits:
            visit.cursor = reader.visits[-1].cursor
        reader.visits.append(visit)
        return await visit.__aenter__()

    async def _close(self) -> None:
        for task in self._visiting:
            task.cancel()
        await asyncio.gather(*self._visiting, return_exceptions=True)
        for reader in self.readers:
            for visit in reader.visits:
                await visit.close()
