"""Group commit: what goes into one commit, in which order, and who is told what.

The log is a stand-in that records the batches and answers when it is let to.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import cast

import pytest

from streams.log import committer as committer_module
from streams.log.append_batch import MAX_BATCH
from streams.log.appender import MAX_HELD_BYTES, Appender
from streams.log.database import Database, Session
from streams.log.log import Appended, Log, Unit
from streams.model.errors import (
    Closed,
    Contended,
    IdempotencyMismatch,
    InvalidInput,
    LogUnavailable,
    Overloaded,
    ProjectNotFound,
    StreamsError,
)
from streams.model.events import MAX_TEXT_BYTES, NewMessage
from streams.runtime.observer import Observer
from tests.support.waiting import wait_until


class _RecordingLog(Log):
    """Numbers messages, refuses repeats within a call, and waits at the gate before it answers."""

    def __init__(self) -> None:
        super().__init__(cast("Database", None))
        self.batches: list[list[Unit]] = []
        self.gate = asyncio.Event()
        self.failures: list[StreamsError] = []
        self.refused: dict[str, StreamsError] = {}
        self.bug: Exception | None = None
        self.held_by_others: set[str] = set()
        self.counted: dict[str, int] = {}
        self._known: dict[tuple[str, str, str], Appended] = {}

    async def append(
        self, units: Sequence[Unit], session: Session | None = None
    ) -> list[list[Appended] | StreamsError]:
        assert session is None
        self.batches.append(list(units))
        await self.gate.wait()
        if self.bug is not None:
            raise self.bug
        if self.failures:
            raise self.failures.pop(0)
        if any(unit.project_id in self.held_by_others for unit in units):
            raise Contended("locked")
        if any(m.source.text == "unfit" for unit in units for m in unit.messages):
            raise StreamsError("refused")
        seen: set[tuple[str, str, str]] = set()
        results: list[list[Appended] | StreamsError] = []
        for unit in units:
            if unit.project_id in self.refused:
                results.append(self.refused[unit.project_id])
                continue
            appended = []
            for message in unit.messages:
                source = message.source
                key = (unit.project_id, source.user_id, source.client_msg_id or "")
                if source.client_msg_id is not None:
                    assert key not in seen, "one id twice in one commit"
                    seen.add(key)
                    if key in self._known:
                        appended.append(Appended(self._known[key].message, True))
                        continue
                seq = self.counted[unit.project_id] = self.counted.get(unit.project_id, 0) + 1
                committed = message.committed(unit.project_id, seq, str(message.message_id), "t")
                appended.append(Appended(committed, False))
                self._known[key] = appended[-1]
            results.append(appended)
        return results

    async def locked(self, project_ids: Sequence[str]) -> set[str]:
        return self.held_by_others & set(project_ids)

    def texts(self) -> list[list[str]]:
        """The texts of each commit."""
        return [
            [message.source.text for unit in batch for message in unit.messages]
            for batch in self.batches
        ]


class _World:
    def __init__(self, log: _RecordingLog, appender: Appender) -> None:
        self.log = log
        self.appender = appender
        self.published: list[tuple[str, int, int]] = []

    def begin(
        self, text: str, *, project: str = "p", client_msg_id: str | None = None, count: int = 1
    ) -> asyncio.Task[list[Appended]]:
        """Append in a task."""
        message = NewMessage(user_id="u", text=text, client_msg_id=client_msg_id)
        return asyncio.create_task(self.appender.append(project, [message] * count))

    async def commit_under_way(self) -> None:
        """Wait until a commit waits at the gate."""
        await wait_until(lambda: bool(self.log.batches), what="a commit under way")


@contextlib.asynccontextmanager
async def _appending(*, committers: int = 1) -> AsyncIterator[_World]:
    log = _RecordingLog()
    published: list[tuple[str, int, int]] = []
    appender = Appender(
        log,
        lambda project, first, data: published.append((project, first, len(data))),
        Observer(),
        committers=committers,
    )
    world = _World(log, appender)
    world.published = published
    task = asyncio.create_task(appender.run())
    try:
        yield world
    finally:
        log.gate.set()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_lone_append_waits_for_nothing() -> None:
    """DESIGN: a lone append goes in a commit of its own at once."""
    async with _appending() as world:
        world.log.gate.set()
        await world.begin("a")
        assert world.log.texts() == [["a"]]


async def test_appends_that_arrive_during_a_commit_go_together_in_the_next_one() -> None:
    """DESIGN: group commit; order is kept."""
    async with _appending() as world:
        first = world.begin("a")
        await world.commit_under_way()
        others = [world.begin(text) for text in "bcd"]
        await asyncio.sleep(0)  # all wait
        world.log.gate.set()
        await asyncio.gather(first, *others)
        assert world.log.texts() == [["a"], ["b", "c", "d"]]


async def _commit_of_two(world: _World) -> None:
    """Let a commit of "b" and "c" end, after one of "a"."""
    first = world.begin("a")
    await world.commit_under_way()
    others = [world.begin(text) for text in "bc"]
    await asyncio.sleep(0)
    world.log.gate.set()
    await asyncio.gather(first, *others)


async def test_after_a_commit_of_two_the_next_waits_for_two(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Callers that wait for their answers come back together: fewer, larger commits."""
    monkeypatch.setattr(committer_module, "GATHER_S", 3600.0)
    async with _appending() as world:
        await _commit_of_two(world)
        alone = world.begin("d")
        await asyncio.sleep(0.01)
        assert len(world.log.batches) == 2
        await asyncio.gather(alone, world.begin("e"))
        assert world.log.texts() == [["a"], ["b", "c"], ["d", "e"]]


async def test_one_that_stays_alone_waits_no_longer_than_the_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Who does not come back delays the others by milliseconds, once."""
    monkeypatch.setattr(committer_module, "GATHER_S", 0.05)
    async with _appending() as world:
        await _commit_of_two(world)
        await world.begin("d")
        monkeypatch.setattr(committer_module, "GATHER_S", 3600.0)
        await world.begin("e")
        assert world.log.texts() == [["a"], ["b", "c"], ["d"], ["e"]]


async def test_one_commit_never_holds_a_client_msg_id_twice() -> None:
    """G5: the second of two equal posts goes in a later commit, and gets the first result."""
    async with _appending() as world:
        blocker = world.begin("blocker")
        await world.commit_under_way()
        first = world.begin("a", client_msg_id="c")
        second = world.begin("a", client_msg_id="c")
        await asyncio.sleep(0)
        world.log.gate.set()
        await blocker
        (one,), (two,) = await asyncio.gather(first, second)
        assert (one.duplicate, two.duplicate) == (False, True)
        assert one.message == two.message
        assert world.log.texts() == [["blocker"], ["a"], ["a"]]


async def test_a_repeat_within_a_batch_gets_the_first_result() -> None:
    """G5: posting the same client_msg_id again adds nothing."""
    async with _appending() as world:
        world.log.gate.set()
        one, two = await world.begin("a", client_msg_id="c", count=2)
        assert (one.duplicate, two.duplicate, two.message) == (False, True, one.message)
        assert world.log.counted == {"p": 1}


async def test_another_content_within_a_batch_is_a_mismatch() -> None:
    """G5: 409, and nothing of the batch is written."""
    async with _appending() as world:
        world.log.gate.set()
        messages = [NewMessage(user_id="u", text=text, client_msg_id="c") for text in "ab"]
        with pytest.raises(IdempotencyMismatch) as refused:
            await world.appender.append("p", messages)
        assert refused.value.index == 1
        assert world.log.batches == []


async def test_the_same_id_of_two_users_is_no_repeat() -> None:
    """G5: as the same user in the same project."""
    async with _appending() as world:
        world.log.gate.set()
        messages = [NewMessage(user_id=user, text=user, client_msg_id="c") for user in "ab"]
        appended = await world.appender.append("p", messages)
        assert [each.duplicate for each in appended] == [False, False]


async def test_a_commit_is_bounded_and_units_stay_whole() -> None:
    """Every buffer is bounded: what does not fit goes in the next commit."""
    async with _appending() as world:
        blocker = world.begin("blocker")
        await world.commit_under_way()
        units = [world.begin(str(number), count=200) for number in range(6)]
        await asyncio.sleep(0)
        world.log.gate.set()
        await asyncio.gather(blocker, *units)
        sizes = [sum(len(unit.messages) for unit in batch) for batch in world.log.batches]
        assert sizes == [1, 400, 400, 400]
        assert max(sizes) <= MAX_BATCH


async def test_what_waits_is_bounded() -> None:
    """Every buffer is bounded: beyond it the caller is told to come back."""
    async with _appending() as world:
        waiting = [world.begin("x", count=500) for _ in range(10)]
        await world.commit_under_way()
        waiting += [world.begin("x", count=500)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await world.begin("one too many")
        world.log.gate.set()
        await asyncio.gather(*waiting)


async def test_a_caller_that_goes_away_does_not_take_its_message_along() -> None:
    """§4: the commit goes on; a message is in the log or not, never half."""
    async with _appending() as world:
        leaving = world.begin("a")
        await world.commit_under_way()
        leaving.cancel()
        world.log.gate.set()
        await world.appender.drained()
        assert world.log.counted == {"p": 1}
        assert world.published == [("p", 1, 1)]


async def test_one_refused_unit_fails_only_its_own_caller() -> None:
    """A batch of strangers: each gets the error that is its own."""
    async with _appending() as world:
        world.log.refused["gone"] = ProjectNotFound("gone")
        blocker = world.begin("blocker")
        await world.commit_under_way()
        bad, good = world.begin("x", project="gone"), world.begin("y")
        await asyncio.sleep(0)
        world.log.gate.set()
        await blocker
        with pytest.raises(ProjectNotFound):
            await bad
        assert (await good)[0].message.seq == 2


async def test_a_statement_that_postgres_refuses_is_tried_unit_by_unit() -> None:
    """One unit that Postgres cannot take must not fail the others."""
    async with _appending() as world:
        blocker = world.begin("blocker")
        await world.commit_under_way()
        bad, good = world.begin("unfit"), world.begin("good")
        await asyncio.sleep(0)
        world.log.gate.set()
        await blocker
        with pytest.raises(StreamsError, match="refused"):
            await bad
        assert (await good)[0].message.content.text == "good"


async def test_all_callers_of_a_failed_commit_are_told() -> None:
    """§4: 503: the outcome is unknown, the client repeats with the same client_msg_id."""
    async with _appending() as world:
        world.log.failures = [LogUnavailable("away")]
        first = world.begin("a")
        await world.commit_under_way()
        world.log.gate.set()
        with pytest.raises(LogUnavailable):
            await first


async def test_an_append_whose_time_is_over_is_told_though_its_commit_hangs() -> None:
    """§4: one deadline for a post; the commit under way goes on, and what waited is not sent."""
    async with _appending() as world:
        now_s = asyncio.get_running_loop().time()
        message = NewMessage(user_id="u", text="a")
        committing = world.appender.submit("p", message, deadline_s=now_s + 0.05)
        await world.commit_under_way()
        waiting = world.appender.submit("p", message, deadline_s=now_s)
        for late in (waiting, committing):
            with pytest.raises(LogUnavailable):
                await late
        draining = asyncio.create_task(world.appender.drained())
        await asyncio.sleep(0)
        assert not draining.done()
        world.log.gate.set()
        await draining
        assert world.log.texts() == [["a"]]
        assert world.published == [("p", 1, 1)]


async def test_when_a_committer_ends_nobody_waits_for_it() -> None:
    """§4: 503 at once, for what waits and for what comes later; the process is then restarted."""
    async with _appending() as world:
        world.log.bug = RuntimeError("a bug")
        first = world.begin("a")
        await world.commit_under_way()
        second = world.begin("b")
        await asyncio.sleep(0)
        world.log.gate.set()
        for waiting in (first, second):
            with pytest.raises(LogUnavailable):
                await waiting
        with pytest.raises(LogUnavailable):
            await world.begin("c")
        await world.appender.drained()


async def test_what_is_held_is_bounded_in_bytes() -> None:
    """Every buffer is bounded: texts and metadata, of what waits and of what is being committed."""
    async with _appending() as world:
        text = "x" * MAX_TEXT_BYTES
        full = MAX_HELD_BYTES // MAX_TEXT_BYTES // 256
        held = [world.begin(text, count=256) for _ in range(full)]
        await world.commit_under_way()
        with pytest.raises(Overloaded):
            await world.begin("one too many")
        world.log.gate.set()
        await asyncio.gather(*held)
        await world.begin("room again")


async def test_a_locked_project_does_not_keep_its_neighbours() -> None:
    """§4: they are committed without it; it waits by itself, in order, until it is free."""
    async with _appending() as world:
        world.log.held_by_others = {"locked"}
        blocker = world.begin("blocker", project="other")
        await world.commit_under_way()
        first = world.begin("1", project="locked", client_msg_id="c")
        neighbour = world.begin("n", project="free")
        await asyncio.sleep(0)
        world.log.gate.set()
        await asyncio.gather(blocker, neighbour)
        later = [
            world.begin(text, project="locked", client_msg_id=name)
            for text, name in (("1", "c"), ("2", "d"))
        ]
        await world.begin("n", project="free")
        assert not first.done()
        world.log.held_by_others = set()
        (one,) = await first
        (again,), (two,) = await asyncio.gather(*later)
        assert (one.message.seq, again.duplicate, again.message) == (1, True, one.message)
        assert two.message.seq == 2
        assert [batch for batch in world.published if batch[0] == "locked"] == [
            ("locked", 1, 1),
            ("locked", 2, 1),
        ]


async def test_a_project_that_stays_locked_fails_at_its_deadline() -> None:
    """§4: 503, and the project is served again as soon as it is free."""
    async with _appending() as world:
        world.log.held_by_others = {"p"}
        world.log.gate.set()
        now_s = asyncio.get_running_loop().time()
        waiting = world.appender.submit(
            "p", NewMessage(user_id="u", text="a"), deadline_s=now_s + 0.02
        )
        with pytest.raises(LogUnavailable):
            await waiting
        world.log.held_by_others = set()
        await world.begin("b")
        assert world.log.counted == {"p": 1}


async def test_committed_messages_are_published_in_order_and_repeats_are_not() -> None:
    """G1: broadcast after the commit, as one contiguous run a project."""
    async with _appending() as world:
        world.log.gate.set()
        await world.begin("a", client_msg_id="c")
        await world.begin("a", client_msg_id="c")
        await world.begin("b", count=3)
        assert world.published == [("p", 1, 1), ("p", 2, 3)]


async def test_nothing_is_published_before_the_commit() -> None:
    """G1: a message is broadcast only after its commit."""
    async with _appending() as world:
        task = world.begin("a")
        await world.commit_under_way()
        assert world.published == []
        world.log.gate.set()
        await task
        assert world.published == [("p", 1, 1)]


async def test_two_committers_have_two_commits_in_flight() -> None:
    """DESIGN: a few committers per process, each with its own projects."""
    async with _appending(committers=2) as world:
        tasks = [world.begin("x", project=project) for project in ("a", "b", "c", "d")]
        await wait_until(lambda: len(world.log.batches) == 2, what="two commits under way")
        world.log.gate.set()
        await asyncio.gather(*tasks)


async def test_one_project_is_committed_by_one_committer() -> None:
    """G1: the messages of a project are published in order."""
    async with _appending(committers=4) as world:
        first = world.begin("a")
        await world.commit_under_way()
        second = world.begin("b")
        for _ in range(5):
            await asyncio.sleep(0)
        assert world.log.texts() == [["a"]]
        world.log.gate.set()
        await asyncio.gather(first, second)


async def test_draining_finishes_what_waits_and_refuses_more() -> None:
    """§6: on SIGTERM what is being committed is finished."""
    async with _appending() as world:
        waiting = [world.begin(text) for text in "abc"]
        await world.commit_under_way()
        draining = asyncio.create_task(world.appender.drained())
        await asyncio.sleep(0)
        with pytest.raises(Closed):
            await world.begin("late")
        world.log.gate.set()
        await draining
        assert [task.result()[0].message.seq for task in waiting] == [1, 2, 3]


async def test_a_bad_message_is_refused_before_anything_is_written() -> None:
    """§4: 400, and the log was not asked."""
    async with _appending() as world:
        with pytest.raises(InvalidInput):
            await world.begin("")
        assert world.log.batches == []


async def test_nothing_to_append_is_nothing() -> None:
    """An empty batch writes nothing and waits for nothing."""
    async with _appending() as world:
        assert await world.appender.append("p", []) == []
