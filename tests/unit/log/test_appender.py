"""Group commit: the content and order of each commit, and the result of each append.

A fake log records the batches and answers when the test opens its gate.
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
    """Numbers messages, fails on a repeat within a call, and waits at the gate to answer."""

    def __init__(self) -> None:
        super().__init__(cast("Database", None))
        self.batches: list[list[Unit]] = []
        self.gate = asyncio.Event()
        self.failures: list[StreamsError] = []
        self.refused: dict[str, StreamsError] = {}
        self.bug: Exception | None = None
        self.locked_by_others: set[str] = set()
        self.last_seqs: dict[str, int] = {}
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
        if any(unit.project_id in self.locked_by_others for unit in units):
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
                seq = self.last_seqs[unit.project_id] = self.last_seqs.get(unit.project_id, 0) + 1
                committed = message.committed(unit.project_id, seq, str(message.message_id), "t")
                appended.append(Appended(committed, False))
                self._known[key] = appended[-1]
            results.append(appended)
        return results

    async def locked(self, project_ids: Sequence[str]) -> set[str]:
        return self.locked_by_others & set(project_ids)

    def texts(self) -> list[list[str]]:
        """The texts of each commit."""
        return [
            [message.source.text for unit in batch for message in unit.messages]
            for batch in self.batches
        ]


class _Harness:
    def __init__(self, log: _RecordingLog, appender: Appender) -> None:
        self.log = log
        self.appender = appender
        self.published: list[tuple[str, int, int]] = []

    def start(
        self, text: str, *, project: str = "p", client_msg_id: str | None = None, count: int = 1
    ) -> asyncio.Task[list[Appended]]:
        """Start an append in a task."""
        message = NewMessage(user_id="u", text=text, client_msg_id=client_msg_id)
        return asyncio.create_task(self.appender.append(project, [message] * count))

    async def commit_under_way(self) -> None:
        """Wait until a commit is at the gate."""
        await wait_until(lambda: bool(self.log.batches), what="a commit under way")


@contextlib.asynccontextmanager
async def _appending(*, committers: int = 1) -> AsyncIterator[_Harness]:
    log = _RecordingLog()
    published: list[tuple[str, int, int]] = []
    appender = Appender(
        log,
        lambda project, first, data: published.append((project, first, len(data))),
        Observer(),
        committers=committers,
    )
    harness = _Harness(log, appender)
    harness.published = published
    task = asyncio.create_task(appender.run())
    try:
        yield harness
    finally:
        log.gate.set()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_single_append_is_committed_at_once() -> None:
    """docs/design.md: it has a commit of its own."""
    async with _appending() as harness:
        harness.log.gate.set()
        await harness.start("a")
        assert harness.log.texts() == [["a"]]


async def test_appends_that_arrive_during_a_commit_go_together_in_the_next_one() -> None:
    """docs/design.md: group commit; the order is kept."""
    async with _appending() as harness:
        first = harness.start("a")
        await harness.commit_under_way()
        others = [harness.start(text) for text in "bcd"]
        await asyncio.sleep(0)  # all three are queued
        harness.log.gate.set()
        await asyncio.gather(first, *others)
        assert harness.log.texts() == [["a"], ["b", "c", "d"]]


async def _commit_of_two(harness: _Harness) -> None:
    """Commit "a", then "b" and "c" together."""
    first = harness.start("a")
    await harness.commit_under_way()
    others = [harness.start(text) for text in "bc"]
    await asyncio.sleep(0)
    harness.log.gate.set()
    await asyncio.gather(first, *others)


async def test_after_a_commit_of_two_the_next_waits_for_two_appends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Callers that send again after each answer arrive together: fewer, larger commits."""
    monkeypatch.setattr(committer_module, "GATHER_S", 3600.0)
    async with _appending() as harness:
        await _commit_of_two(harness)
        alone = harness.start("d")
        await asyncio.sleep(0.01)
        assert len(harness.log.batches) == 2
        await asyncio.gather(alone, harness.start("e"))
        assert harness.log.texts() == [["a"], ["b", "c"], ["d", "e"]]


async def test_an_append_that_stays_alone_waits_for_the_gather_time_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A caller that sends no more delays the others by `GATHER_S`, one time."""
    monkeypatch.setattr(committer_module, "GATHER_S", 0.05)
    async with _appending() as harness:
        await _commit_of_two(harness)
        await harness.start("d")
        monkeypatch.setattr(committer_module, "GATHER_S", 3600.0)
        await harness.start("e")
        assert harness.log.texts() == [["a"], ["b", "c"], ["d"], ["e"]]


async def test_a_commit_never_has_a_client_msg_id_twice() -> None:
    """G5: the second of two equal posts is in a later commit and gets the first result."""
    async with _appending() as harness:
        blocker = harness.start("blocker")
        await harness.commit_under_way()
        first = harness.start("a", client_msg_id="c")
        second = harness.start("a", client_msg_id="c")
        await asyncio.sleep(0)
        harness.log.gate.set()
        await blocker
        (one,), (two,) = await asyncio.gather(first, second)
        assert (one.duplicate, two.duplicate) == (False, True)
        assert one.message == two.message
        assert harness.log.texts() == [["blocker"], ["a"], ["a"]]


async def test_a_repeat_within_a_batch_gets_the_first_result() -> None:
    """G5: posting the same client_msg_id again adds nothing."""
    async with _appending() as harness:
        harness.log.gate.set()
        one, two = await harness.start("a", client_msg_id="c", count=2)
        assert (one.duplicate, two.duplicate, two.message) == (False, True, one.message)
        assert harness.log.last_seqs == {"p": 1}


async def test_another_content_under_one_id_within_a_batch_is_a_mismatch() -> None:
    """G5: 409, and nothing of the batch is written."""
    async with _appending() as harness:
        harness.log.gate.set()
        messages = [NewMessage(user_id="u", text=text, client_msg_id="c") for text in "ab"]
        with pytest.raises(IdempotencyMismatch) as refused:
            await harness.appender.append("p", messages)
        assert refused.value.index == 1
        assert harness.log.batches == []


async def test_the_same_id_of_two_users_is_no_repeat() -> None:
    """G5: a client_msg_id belongs to one user in one project."""
    async with _appending() as harness:
        harness.log.gate.set()
        messages = [NewMessage(user_id=user, text=user, client_msg_id="c") for user in "ab"]
        appended = await harness.appender.append("p", messages)
        assert [each.duplicate for each in appended] == [False, False]


async def test_a_commit_is_bounded_and_units_stay_whole() -> None:
    """A unit that does not fit in a commit goes in the next one."""
    async with _appending() as harness:
        blocker = harness.start("blocker")
        await harness.commit_under_way()
        units = [harness.start(str(number), count=200) for number in range(6)]
        await asyncio.sleep(0)
        harness.log.gate.set()
        await asyncio.gather(blocker, *units)
        sizes = [sum(len(unit.messages) for unit in batch) for batch in harness.log.batches]
        assert sizes == [1, 400, 400, 400]
        assert max(sizes) <= MAX_BATCH


async def test_pending_appends_are_bounded_in_number() -> None:
    """Above the bound an append raises `Overloaded`."""
    async with _appending() as harness:
        waiting = [harness.start("x", count=500) for _ in range(10)]
        await harness.commit_under_way()
        waiting += [harness.start("x", count=500)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await harness.start("one too many")
        harness.log.gate.set()
        await asyncio.gather(*waiting)


async def test_a_cancelled_caller_does_not_stop_its_commit() -> None:
    """docs/protocol.md §4: its message is committed and published."""
    async with _appending() as harness:
        leaving = harness.start("a")
        await harness.commit_under_way()
        leaving.cancel()
        harness.log.gate.set()
        await harness.appender.drained()
        assert harness.log.last_seqs == {"p": 1}
        assert harness.published == [("p", 1, 1)]


async def test_a_refused_unit_fails_only_its_own_caller() -> None:
    """The other appends of the same commit succeed."""
    async with _appending() as harness:
        harness.log.refused["gone"] = ProjectNotFound("gone")
        blocker = harness.start("blocker")
        await harness.commit_under_way()
        bad, good = harness.start("x", project="gone"), harness.start("y")
        await asyncio.sleep(0)
        harness.log.gate.set()
        await blocker
        with pytest.raises(ProjectNotFound):
            await bad
        assert (await good)[0].message.seq == 2


async def test_a_statement_that_postgres_refuses_is_retried_unit_by_unit() -> None:
    """A unit that Postgres cannot store does not fail the others."""
    async with _appending() as harness:
        blocker = harness.start("blocker")
        await harness.commit_under_way()
        bad, good = harness.start("unfit"), harness.start("good")
        await asyncio.sleep(0)
        harness.log.gate.set()
        await blocker
        with pytest.raises(StreamsError, match="refused"):
            await bad
        assert (await good)[0].message.content.text == "good"


async def test_all_appends_of_a_failed_commit_fail() -> None:
    """docs/protocol.md §4: 503; the client repeats with the same client_msg_id."""
    async with _appending() as harness:
        harness.log.failures = [LogUnavailable("away")]
        first = harness.start("a")
        await harness.commit_under_way()
        harness.log.gate.set()
        with pytest.raises(LogUnavailable):
            await first


async def test_an_append_fails_at_its_deadline_while_its_commit_hangs() -> None:
    """docs/protocol.md §4: the commit under way continues; a queued append is not committed."""
    async with _appending() as harness:
        now_s = asyncio.get_running_loop().time()
        message = NewMessage(user_id="u", text="a")
        committing = harness.appender.submit("p", message, deadline_s=now_s + 0.05)
        await harness.commit_under_way()
        waiting = harness.appender.submit("p", message, deadline_s=now_s)
        for late in (waiting, committing):
            with pytest.raises(LogUnavailable):
                await late
        draining = asyncio.create_task(harness.appender.drained())
        await asyncio.sleep(0)
        assert not draining.done()
        harness.log.gate.set()
        await draining
        assert harness.log.texts() == [["a"]]
        assert harness.published == [("p", 1, 1)]


async def test_when_a_committer_ends_its_appends_fail_at_once() -> None:
    """docs/protocol.md §4: 503, for pending appends and for later ones; the process restarts."""
    async with _appending() as harness:
        harness.log.bug = RuntimeError("a bug")
        first = harness.start("a")
        await harness.commit_under_way()
        second = harness.start("b")
        await asyncio.sleep(0)
        harness.log.gate.set()
        for waiting in (first, second):
            with pytest.raises(LogUnavailable):
                await waiting
        with pytest.raises(LogUnavailable):
            await harness.start("c")
        await harness.appender.drained()


async def test_pending_appends_are_bounded_in_bytes() -> None:
    """The bound counts texts and metadata of appends that are queued or being committed."""
    async with _appending() as harness:
        text = "x" * MAX_TEXT_BYTES
        full = MAX_HELD_BYTES // MAX_TEXT_BYTES // 256
        held = [harness.start(text, count=256) for _ in range(full)]
        await harness.commit_under_way()
        with pytest.raises(Overloaded):
            await harness.start("one too many")
        harness.log.gate.set()
        await asyncio.gather(*held)
        await harness.start("room again")


async def test_a_locked_project_does_not_delay_other_projects() -> None:
    """docs/protocol.md §4: its own appends wait in order until it is free."""
    async with _appending() as harness:
        harness.log.locked_by_others = {"locked"}
        blocker = harness.start("blocker", project="other")
        await harness.commit_under_way()
        first = harness.start("1", project="locked", client_msg_id="c")
        neighbour = harness.start("n", project="free")
        await asyncio.sleep(0)
        harness.log.gate.set()
        await asyncio.gather(blocker, neighbour)
        later = [
            harness.start(text, project="locked", client_msg_id=name)
            for text, name in (("1", "c"), ("2", "d"))
        ]
        await harness.start("n", project="free")
        assert not first.done()
        harness.log.locked_by_others = set()
        (one,) = await first
        (again,), (two,) = await asyncio.gather(*later)
        assert (one.message.seq, again.duplicate, again.message) == (1, True, one.message)
        assert two.message.seq == 2
        assert [batch for batch in harness.published if batch[0] == "locked"] == [
            ("locked", 1, 1),
            ("locked", 2, 1),
        ]


async def test_a_project_that_stays_locked_fails_at_its_deadline() -> None:
    """docs/protocol.md §4: 503; once it is free the project is served again."""
    async with _appending() as harness:
        harness.log.locked_by_others = {"p"}
        harness.log.gate.set()
        now_s = asyncio.get_running_loop().time()
        waiting = harness.appender.submit(
            "p", NewMessage(user_id="u", text="a"), deadline_s=now_s + 0.02
        )
        with pytest.raises(LogUnavailable):
            await waiting
        harness.log.locked_by_others = set()
        await harness.start("b")
        assert harness.log.last_seqs == {"p": 1}


async def test_committed_messages_are_published_in_order_and_repeats_are_not() -> None:
    """G1: after the commit, as consecutive messages of a project."""
    async with _appending() as harness:
        harness.log.gate.set()
        await harness.start("a", client_msg_id="c")
        await harness.start("a", client_msg_id="c")
        await harness.start("b", count=3)
        assert harness.published == [("p", 1, 1), ("p", 2, 3)]


async def test_nothing_is_published_before_the_commit() -> None:
    """G1: a message is broadcast only after its commit."""
    async with _appending() as harness:
        task = harness.start("a")
        await harness.commit_under_way()
        assert harness.published == []
        harness.log.gate.set()
        await task
        assert harness.published == [("p", 1, 1)]


async def test_two_committers_have_two_commits_in_flight() -> None:
    """docs/design.md: a few committers per process, each with its own projects."""
    async with _appending(committers=2) as harness:
        tasks = [harness.start("x", project=project) for project in ("a", "b", "c", "d")]
        await wait_until(lambda: len(harness.log.batches) == 2, what="two commits under way")
        harness.log.gate.set()
        await asyncio.gather(*tasks)


async def test_one_project_is_committed_by_one_committer() -> None:
    """G1: the messages of a project are published in order."""
    async with _appending(committers=4) as harness:
        first = harness.start("a")
        await harness.commit_under_way()
        second = harness.start("b")
        for _ in range(5):
            await asyncio.sleep(0)
        assert harness.log.texts() == [["a"]]
        harness.log.gate.set()
        await asyncio.gather(first, second)


async def test_draining_commits_pending_appends_and_refuses_new_ones() -> None:
    """docs/protocol.md §6: on SIGTERM the commits under way are finished."""
    async with _appending() as harness:
        waiting = [harness.start(text) for text in "abc"]
        await harness.commit_under_way()
        draining = asyncio.create_task(harness.appender.drained())
        await asyncio.sleep(0)
        with pytest.raises(Closed):
            await harness.start("late")
        harness.log.gate.set()
        await draining
        assert [task.result()[0].message.seq for task in waiting] == [1, 2, 3]


async def test_a_bad_message_is_refused_before_anything_is_written() -> None:
    """docs/protocol.md §4: 400; the log is not called."""
    async with _appending() as harness:
        with pytest.raises(InvalidInput):
            await harness.start("")
        assert harness.log.batches == []


async def test_an_empty_batch_returns_at_once() -> None:
    """It writes nothing."""
    async with _appending() as harness:
        assert await harness.appender.append("p", []) == []
