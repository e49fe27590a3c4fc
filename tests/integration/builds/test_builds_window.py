"""Many transient entries: the window is bounded, and no change of status is lost."""

from __future__ import annotations

import pytest
import redis.asyncio as redis

from service.operate.embedded import RedisServer
from streams import BuildContent, BuildStatus, EntryId, NewMessage
from streams.model.build_states import read_build_status, states
from streams.model.events import BuildState, format_now
from streams.window import keys
from streams.window.window import MAX_ENTRIES
from tests.integration.conftest import OpenLog
from tests.support.build_events import statuses
from tests.support.follower import Follower, following
from tests.support.history import Event
from tests.support.waiting import wait_until

# By a thread it would end pytest at once and leave the servers running.
pytestmark = pytest.mark.timeout(60, method="signal")


def _status(project: str, build: str, status: BuildState, progress: float) -> BuildStatus:
    content = BuildContent(build, "v", 1, progress=progress)
    return BuildStatus(project, "u", status, content, format_now(), {})


async def test_progress_is_deleted_first_and_changes_of_status_stay(
    open_log: OpenLog, project: str
) -> None:
    """Progress may be merged; changes of `status` and messages are never deleted for it."""
    log = await open_log()
    for n in range(3):
        await log.append(project, NewMessage(user_id="u", text=f"m{n}"))
    await log.publisher.drained()
    for build in ("a", "b"):
        await log.append_status(project, _status(project, build, "queued", 0))
    for n in range(2 * MAX_ENTRIES):
        await log.append_status(project, _status(project, "ab"[n % 2], "in_progress", n / 100))
    for build in ("a", "b"):
        await log.append_status(project, _status(project, build, "completed", 100))
    entries = await log.window.read_after(project, EntryId(0, 0), count=10_000)
    assert len(entries) <= MAX_ENTRIES + 50
    assert [entry.id.seq for entry in entries if entry.id.k == 0] == [1, 2, 3]
    shown = statuses([Event(entry.event, "", entry.data) for entry in entries])
    for build in ("a", "b"):
        kept = [each.status for each in shown if each.content.build_id == build]
        assert list(dict.fromkeys(kept)) == ["queued", "in_progress", "completed"]
    # The newest progress is there, not the oldest.
    assert max(each.content.progress or 0 for each in shown if each.status == "in_progress") > 23.9


async def test_each_state_is_appended_once_by_all_publishers(
    open_log: OpenLog, project: str
) -> None:
    """Two processes publish one build, one of them an older row: no repeat, in order."""
    one, other = await open_log(), await open_log()
    asked = await one.builds.ask(project, NewMessage(user_id="u", text="x", mode="build"))
    await one.publisher.drained()
    build = await other.builds.claim_one(project, asked.build.id, "w")
    build = await other.builds.finish(build, "completed")
    for log in (one, other, one):
        await log.statuses.publish(asked.build, again=True)
        await log.statuses.publish(build, again=True)
    entries = await one.window.read_after(project, EntryId(0, 0), count=100)
    told = [read_build_status(entry.data) for entry in entries if entry.event == "build.status"]
    assert [each[1] for each in told if each is not None] == [
        state.revision for state in states(build)
    ]


async def test_a_status_below_what_was_read_reaches_open_streams(
    open_log: OpenLog, project: str, redis_server: RedisServer
) -> None:
    """G6: a window that went back in time appends below its readers' positions."""
    log = await open_log()
    asked = await log.builds.ask(project, NewMessage(user_id="u", text="x", mode="build"))
    async with (
        following(log, project) as follower,
        redis.Redis.from_url(redis_server.url) as client,
    ):
        await wait_until(lambda: len(_announced(follower)) == 1, what="the first status")
        old = await client.dump(keys.stream(project))
        assert old is not None
        for n in range(3):
            await log.append(project, NewMessage(user_id="u", text=f"m{n}"))
        await follower.wait_seq(4)
        await client.restore(keys.stream(project), 0, old, replace=True)
        build = await log.builds.claim_one(project, asked.build.id, "w")
        await log.statuses.drained()
        assert await log.window.last_id(project) == EntryId(1, 2)
        await wait_until(
            lambda: (build.id, build.revision, False) in _announced(follower), what="the status"
        )
        assert follower.seqs == [1, 2, 3, 4]


def _announced(follower: Follower) -> list[tuple[str, int, bool] | None]:
    return [
        read_build_status(event.data) for event in follower.events if event.name == "build.status"
    ]
