"""Cached memberships (docs/protocol.md §3): looked up in batches, used for seconds."""

from __future__ import annotations

import asyncio

import pytest

from service.access.membership import FRESH_S, FRESH_WITH_NOTICES_S, AccessControl
from streams.eventlog import EventLog
from streams.log.database import Database
from streams.model.errors import LogUnavailable
from tests.integration.conftest import NewProject, OpenLog
from tests.support.health import fail_redis, recover_redis
from tests.support.waiting import wait_until

Asked = list[list[tuple[str, str]]]


@pytest.fixture
async def log(open_log: OpenLog) -> EventLog:
    """A log of the test's own."""
    return await open_log()


@pytest.fixture
def asked(log: EventLog, monkeypatch: pytest.MonkeyPatch) -> Asked:
    """The pairs of each question that goes to Postgres."""
    questions: Asked = []
    ask = log.projects.which_are_members

    async def ask_and_note(pairs: list[tuple[str, str]]) -> set[tuple[str, str]]:
        questions.append(list(pairs))
        return await ask(pairs)

    monkeypatch.setattr(log.projects, "which_are_members", ask_and_note)
    return questions


async def test_those_who_come_together_are_asked_for_together(
    log: EventLog, asked: Asked, new_project: NewProject
) -> None:
    """The first goes at once, the others in one question; each gets its own answer."""
    projects = [await new_project() for _ in range(20)]
    access = AccessControl(log)
    users = ["owner", "stranger"]
    answers = await asyncio.gather(
        *(access.is_member(project, user) for project in projects for user in users)
    )
    assert answers == [True, False] * 20
    assert sum(map(len, asked)) == 40
    assert len(asked) <= 2


async def test_a_member_is_remembered_and_a_stranger_is_not(
    log: EventLog, asked: Asked, project: str
) -> None:
    """A stranger may be made a member at any time."""
    access = AccessControl(log)
    for _ in range(3):
        assert await access.is_member(project, "owner")
        assert not await access.is_member(project, "anna")
    await log.projects.add_member(project, "anna")
    assert await access.is_member(project, "anna")
    assert asked.count([(project, "owner")]) == 1
    assert asked.count([(project, "anna")]) == 4


async def test_who_goes_away_takes_nobody_along(log: EventLog, project: str) -> None:
    """Cancelled while waiting: another who waits for the same answer gets it."""
    access = AccessControl(log)
    first, second = (asyncio.create_task(access.is_member(project, "owner")) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert await second
    with pytest.raises(asyncio.CancelledError):
        await first


@pytest.mark.parametrize("error", [LogUnavailable("away"), ZeroDivisionError("a bug")])
async def test_all_who_wait_are_told_of_a_question_that_failed(
    log: EventLog, project: str, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """And the next question goes out again."""
    access = AccessControl(log)

    async def away(_: object) -> set[tuple[str, str]]:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(log.projects, "which_are_members", away)
        answers = await asyncio.gather(
            *(access.is_member(project, "owner") for _ in range(3)), return_exceptions=True
        )
        assert [type(answer) for answer in answers] == [type(error)] * 3
    assert await access.is_member(project, "owner")


async def test_a_removal_that_is_told_is_known_at_once(
    log: EventLog, open_log: OpenLog, project: str, database: Database
) -> None:
    """In other processes, too, long before what they remember is old."""
    await log.projects.add_member(project, "anna")
    other = await open_log()
    here, there = AccessControl(log), AccessControl(other)
    async with other.tails.reading(project):
        assert await here.is_member(project, "anna")
        assert await there.is_member(project, "anna")
        await log.projects.remove_member(project, "anna")

        async def is_forgotten() -> bool:
            # At most once: told again until the other process has begun to listen.
            await here.revoked(project, "anna")
            return not await there.is_member(project, "anna")

        await wait_until(is_forgotten, timeout_s=FRESH_S / 2, what="the notice")
        assert not await here.is_member(project, "anna")


async def test_a_removal_during_a_question_is_not_overlooked(
    log: EventLog, project: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer was read before the removal and comes after its notice."""
    await log.projects.add_member(project, "anna")
    access = AccessControl(log)
    ask = log.projects.which_are_members

    async def ask_then_remove(pairs: list[tuple[str, str]]) -> set[tuple[str, str]]:
        members = await ask(pairs)
        await log.projects.remove_member(project, "anna")
        await access.revoked(project, "anna")
        return members

    with monkeypatch.context() as patched:
        patched.setattr(log.projects, "which_are_members", ask_then_remove)
        assert await access.is_member(project, "anna")
    assert not await access.is_member(project, "anna")


class _Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


async def _asks_after(access: AccessControl, asked: Asked, project: str) -> bool:
    before = len(asked)
    assert await access.is_member(project, "owner")
    return len(asked) > before


async def test_who_is_not_told_of_removals_asks_again_soon(
    log: EventLog, asked: Asked, project: str
) -> None:
    """Nobody reads the project here."""
    clock = _Clock()
    access = AccessControl(log, clock)
    assert await _asks_after(access, asked, project)
    clock.now_s += FRESH_S
    assert not await _asks_after(access, asked, project)
    clock.now_s += 0.1
    assert await _asks_after(access, asked, project)


async def test_who_is_told_of_removals_asks_less_often(
    log: EventLog, asked: Asked, project: str
) -> None:
    """But what was asked before the first reader came may have missed a notice."""
    clock = _Clock()
    access = AccessControl(log, clock)
    assert await _asks_after(access, asked, project)
    async with log.tails.reading(project):
        clock.now_s += FRESH_S + 0.1
        assert await _asks_after(access, asked, project)
        clock.now_s += FRESH_WITH_NOTICES_S
        assert not await _asks_after(access, asked, project)
        clock.now_s += 0.1
        assert await _asks_after(access, asked, project)
        clock.now_s += FRESH_S + 0.1
        # Notices may have been lost.
        fail_redis(log.health)
        assert await _asks_after(access, asked, project)
        await recover_redis(log.health)
        clock.now_s += FRESH_S + 0.1
        assert await _asks_after(access, asked, project)
