"""Running answers of a process: their limits, and their leases after an outage."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from urllib.parse import urlsplit

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from service.access.limits import Slots
from service.assistant.answer_desk import AnswerDesk
from service.assistant.assistants import Turn
from service.http.api_errors import ApiError
from service.operate.embedded import RedisServer
from service.telemetry.metrics import Metrics
from streams.answers.answer_values import Answer
from streams.answers.pieces import Piece, text_piece
from streams.eventlog import EventLog, EventLogConfig
from streams.log.database import Database
from streams.model.errors import IdempotencyMismatch, Overloaded
from streams.model.events import NewMessage, encode
from streams.model.ids import EntryId
from streams.window.transient import MAX_DATA_BYTES
from tests.integration.conftest import NewProject, OpenLog
from tests.support.tcp_proxy import TcpProxy
from tests.support.waiting import wait_until


class _Gate:
    """An assistant that yields one word once `may_end` is set."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.may_end = asyncio.Event()

    async def answer(self, turns: Sequence[Turn]) -> AsyncGenerator[Piece, None]:
        self.asked.set()
        await self.may_end.wait()
        yield text_piece("said")

    async def close(self) -> None:
        pass


def _desk(log: EventLog, gate: _Gate, slots: Slots, *, lease_s: float = 30.0) -> AnswerDesk:
    metrics = Metrics(CollectorRegistry())
    return AnswerDesk(log, gate, slots, metrics, lease_s=lease_s, timeout_s=600)


def _question(user: str, client_msg_id: str | None, text: str = "x") -> NewMessage:
    return NewMessage(user_id=user, text=text, mode="plan", client_msg_id=client_msg_id)


@contextlib.asynccontextmanager
async def _desk_and_gate(
    log: EventLog, *, per_user: int = 0, per_project: int = 0, in_all: int = 0
) -> AsyncIterator[tuple[AnswerDesk, _Gate]]:
    gate = _Gate()
    desk = _desk(log, gate, Slots(per_user=per_user, per_project=per_project, in_all=in_all))
    try:
        yield desk, gate
    finally:
        gate.may_end.set()
        await desk.drain()


async def test_running_answers_of_a_user_are_limited(
    open_log: OpenLog, new_project: NewProject
) -> None:
    """§6 Limits: 429 above it, over all projects; nothing is written; other users are served."""
    log = await open_log()
    one, two = await new_project(), await new_project()
    async with _desk_and_gate(log, per_user=2) as (desk, gate):
        await desk.start(one, _question("u", "c1"), stream=True)
        first = await desk.start(two, _question("u", "c2"), stream=True)
        heads = await log.head(one), await log.head(two)
        for client_msg_id in (None, "c3"):
            with pytest.raises(ApiError) as refused:
                await desk.start(two, _question("u", client_msg_id), stream=True)
            assert (refused.value.status, refused.value.code) == (429, "RATE_LIMITED")
            assert refused.value.retry_after_s
        assert (await log.head(one), await log.head(two)) == heads
        # G5: a repeat still gets its first result; different content is a mismatch.
        again = await desk.start(two, _question("u", "c2"), stream=True)
        assert (again.answer, again.is_ours) == (first.answer, False)
        with pytest.raises(IdempotencyMismatch):
            await desk.start(two, _question("u", "c2", "another"), stream=True)
        await desk.start(two, _question("other", None), stream=True)
        gate.may_end.set()
        await desk.wait(first.answer)

        async def has_slot() -> bool:
            with contextlib.suppress(ApiError):
                return (await desk.start(two, _question("u", "c4"), stream=True)).is_ours
            return False

        await wait_until(has_slot, what="a free slot of the user")


async def test_running_answers_of_a_project_are_limited(
    open_log: OpenLog, new_project: NewProject
) -> None:
    """§6 Limits: 429 above it for every user; other projects are served."""
    log = await open_log()
    one, two = await new_project(), await new_project()
    async with _desk_and_gate(log, per_project=2) as (desk, _):
        for user in ("u1", "u2"):
            await desk.start(one, _question(user, None), stream=False)
        with pytest.raises(ApiError) as refused:
            await desk.start(one, _question("u3", None), stream=False)
        assert refused.value.status == 429
        assert (await desk.start(two, _question("u3", None), stream=False)).is_ours


async def test_running_answers_of_a_process_are_limited(open_log: OpenLog, project: str) -> None:
    """§4: 503 above it; a repeat still gets its first result."""
    log = await open_log()
    async with _desk_and_gate(log, in_all=1) as (desk, _):
        first = await desk.start(project, _question("u1", "c1"), stream=True)
        for client_msg_id in (None, "c1"):
            with pytest.raises(Overloaded):
                await desk.start(project, _question("u2", client_msg_id), stream=True)
        assert (
            await desk.start(project, _question("u1", "c1"), stream=True)
        ).answer == first.answer
        assert await log.head(project) == first.appended.message.seq


async def test_refused_messages_and_repeats_hold_no_slot(open_log: OpenLog, project: str) -> None:
    """A repeat or a mismatch does not use up the user's limit."""
    log = await open_log()
    async with _desk_and_gate(log, per_user=2) as (desk, _):
        await desk.start(project, _question("u", "c1"), stream=True)
        for _ in range(5):
            await desk.start(project, _question("u", "c1"), stream=True)
            with pytest.raises(IdempotencyMismatch):
                await desk.start(project, _question("u", "c1", "another"), stream=True)
        assert (await desk.start(project, _question("u", "c2"), stream=True)).is_ours


async def test_an_answer_outlives_an_outage_longer_than_its_lease(
    shared_database_url: str,
    redis_server: RedisServer,
    database: Database,
    project: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After an outage all leases have run out: living owners renew before anybody takes over."""
    port = urlsplit(shared_database_url).port
    assert port is not None
    lease_s = 2.0
    gate, slots = _Gate(), Slots(per_user=0, per_project=0, in_all=0)
    async with TcpProxy(port) as proxy, contextlib.AsyncExitStack() as logs:
        url = shared_database_url.replace(f":{port}/", f":{proxy.port}/")
        redis_url = redis_server.url
        config = EventLogConfig(answer_lease_s=lease_s)
        owners = await logs.enter_async_context(EventLog.open(url, redis_url, config=config))
        peers = await logs.enter_async_context(EventLog.open(url, redis_url, config=config))
        owner = _desk(owners, gate, slots, lease_s=lease_s)
        peer = _desk(peers, _Gate(), slots, lease_s=lease_s)
        begun = await owner.start(project, _question("u", "c1"), stream=False)
        await gate.asked.wait()
        try:
            await proxy.refuse()
            await wait_until(lambda: _leases_expired(database, project), what="expiry of the lease")
            # The peer reconnects first and completes a round before the owner may renew.
            rounds = _LeaseRounds(peers)
            renew = owners.answers.rows.renew

            async def renew_later(
                answer_ids: Sequence[str], worker_id: str, *, lease_s: float
            ) -> Mapping[str, str | None]:
                await rounds.round_over.wait()
                return await renew(answer_ids, worker_id, lease_s=lease_s)

            monkeypatch.setattr(owners.answers.rows, "renew", renew_later)
            await proxy.heal()
            async with asyncio.timeout(30):
                await rounds.round_over.wait()
            gate.may_end.set()
            message = await owner.wait(begun.answer)
            assert message.content.text == "said"
        finally:
            gate.may_end.set()
            await asyncio.gather(owner.drain(), peer.drain())


async def _leases_expired(database: Database, project: str) -> bool:
    rows = await database.fetch(
        "SELECT lease_until < now() AS out FROM answers WHERE project_id = $1", project
    )
    return bool(rows[0]["out"])


class _LeaseRounds:
    """Sets `round_over` at the second query after the first success: then a round is over."""

    def __init__(self, log: EventLog) -> None:
        self.round_over = asyncio.Event()
        self._answered = 0
        rows = log.answers.rows
        self._renew, self._take_over = rows.renew, rows.take_over
        rows.renew = self.renew  # type: ignore[method-assign]
        rows.take_over = self.take_over  # type: ignore[method-assign]

    def _note_query(self) -> None:
        if self._answered == 1:
            self.round_over.set()

    async def renew(
        self, answer_ids: Sequence[str], worker_id: str, *, lease_s: float
    ) -> Mapping[str, str | None]:
        self._note_query()
        owned = await self._renew(answer_ids, worker_id, lease_s=lease_s)
        self._answered += 1
        return owned

    async def take_over(
        self, worker_id: str, *, lease_s: float, stop_patience_s: float, limit: int = 20
    ) -> list[Answer]:
        self._note_query()
        taken = await self._take_over(
            worker_id, lease_s=lease_s, stop_patience_s=stop_patience_s, limit=limit
        )
        self._answered += 1
        return taken


class _OnePiece:
    """An assistant that yields one piece at once."""

    def __init__(self, piece: str) -> None:
        self._piece = piece

    async def answer(self, turns: Sequence[Turn]) -> AsyncGenerator[Piece, None]:
        yield text_piece(self._piece)

    async def close(self) -> None:
        pass


async def test_a_large_piece_is_split_into_entries(open_log: OpenLog, project: str) -> None:
    """§5: the deltas concatenate to the text, however large it is with JSON escapes."""
    text = "\x01" * 20_000
    assert len(encode(text)) > MAX_DATA_BYTES
    log = await open_log()
    slots = Slots(per_user=0, per_project=0, in_all=0)
    metrics = Metrics(CollectorRegistry())
    desk = AnswerDesk(log, _OnePiece(text), slots, metrics, lease_s=30, timeout_s=60)
    begun = await desk.start(project, _question("u", None), stream=True)
    message = await desk.wait(begun.answer)
    assert message.content.text == text
    entries = await log.window.read_after(project, EntryId(0, 0), count=100)
    pieces = [msgspec.json.decode(each.data)["content"] for each in entries if each.id.k]
    assert [piece["index"] for piece in pieces] == list(range(len(pieces)))
    assert "".join(piece["delta"] for piece in pieces) == text
    await desk.drain()
