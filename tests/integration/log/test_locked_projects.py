"""docs/protocol.md §4: a project whose row another session holds locked does not delay others.

The lock is a real one, held by a session of the test.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from streams.eventlog import EventLogConfig
from streams.log.database import Database
from streams.model.errors import Contended, LogUnavailable
from streams.model.events import NewMessage
from tests.integration.conftest import NewProject, OpenLog

# One committer: appends to both projects go in the same commits.
_ONE = EventLogConfig(committers=1)


@contextlib.asynccontextmanager
async def _row_locked(database: Database, project_id: str) -> AsyncIterator[None]:
    async with database.transaction() as session:
        await session.fetch("SELECT 1 FROM projects WHERE id = $1 FOR UPDATE", project_id)
        yield


def _message(text: str, client_msg_id: str | None = None) -> NewMessage:
    return NewMessage(user_id="owner", text=text, client_msg_id=client_msg_id)


async def test_other_projects_are_committed_while_one_is_locked(
    database: Database, open_log: OpenLog, new_project: NewProject
) -> None:
    """A commit that meets the lock is repeated without the locked project."""
    log = await open_log(_ONE)
    locked, free = await new_project(), await new_project()
    async with _row_locked(database, locked):
        first = asyncio.create_task(log.append(locked, _message("1", "a")))
        others = [asyncio.create_task(log.append(free, _message(str(n)))) for n in range(20)]
        assert [(await each).seq for each in others] == list(range(1, 21))
        rest = [asyncio.create_task(log.append(locked, _message(str(n)))) for n in range(2, 20)]
        repeat = asyncio.create_task(log.append(locked, _message("1", "a")))
        for n in range(21, 30):
            assert (await log.append(free, _message(str(n)))).seq == n
        assert not first.done()
    assert (await first).seq == 1
    assert (await repeat).seq == 1
    await asyncio.gather(*rest)
    texts = [message.content.text for message in await log.log.read(locked)]
    assert texts == [str(n) for n in range(1, 20)]


async def test_appends_to_a_locked_project_fail_at_their_deadline(
    database: Database, open_log: OpenLog, project: str
) -> None:
    """503; no connection waits for the lock, and the failed append is not written later."""
    log = await open_log(EventLogConfig(committers=1, append_timeout_s=0.6))
    async with _row_locked(database, project):
        with pytest.raises(LogUnavailable):
            await log.append(project, _message("too late"))
        rows = await database.fetch(
            "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            " AND query LIKE '%seqstream_append%'"
        )
        assert not rows
    assert (await log.append(project, _message("in time"))).seq == 1


async def test_appends_wait_for_a_table_lock(
    database: Database, open_log: OpenLog, project: str
) -> None:
    """A migration may take one for a moment: no append fails."""
    log = await open_log(_ONE)
    async with database.transaction() as session:
        await session.execute("LOCK TABLE projects IN ACCESS EXCLUSIVE MODE")
        waiting = asyncio.create_task(log.append(project, _message("x")))
        _, pending = await asyncio.wait([waiting], timeout=0.6)
        assert pending
    assert (await waiting).seq == 1


async def test_a_build_request_for_a_locked_project_is_refused(
    database: Database, open_log: OpenLog, project: str
) -> None:
    """docs/protocol.md §5: 503; nothing of the build is written, and the client tries again."""
    log = await open_log(_ONE)
    async with _row_locked(database, project):
        with pytest.raises(Contended):
            await log.builds.ask(project, _message("build"))
    assert not await log.builds.list(project)
