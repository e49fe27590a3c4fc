"""docs/protocol.md §8: which build is next, how many may wait, what counts as an attempt."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Sequence

import pytest

from streams.builds.build_errors import LeaseLost, TooManyBuilds
from streams.builds.build_rows import BuildRows
from streams.builds.build_values import BuildBounds
from streams.log.database import Database
from streams.log.log import Log
from streams.model.build import MAX_ATTEMPTS, Build
from streams.model.errors import Contended
from streams.model.events import NewMessage


@pytest.fixture
async def own_database(database_url: str) -> AsyncIterator[Database]:
    """A database of the test's own: a claim takes the builds of all projects."""
    opened = await Database.open(database_url, size=10)
    for project_id in ("a", "b", "c"):
        await opened.execute(
            "INSERT INTO projects (id, owner_id, name) VALUES ($1, 'owner', 'x')", project_id
        )
    yield opened
    await opened.close()


@pytest.fixture
def rows(own_database: Database) -> BuildRows:
    """The builds of the test, with the default bounds."""
    return BuildRows(own_database, Log(own_database))


def _question(user_id: str = "u", client_msg_id: str | None = None) -> NewMessage:
    return NewMessage(user_id=user_id, text="x", mode="build", client_msg_id=client_msg_id)


async def _ask(rows: BuildRows, project_id: str, count: int = 1) -> list[str]:
    return [(await rows.requests.ask(project_id, _question())).build.id for _ in range(count)]


async def _queue_many(database: Database, project_id: str, count: int) -> None:
    """Queue builds older than all others, past the bounds."""
    await database.execute(
        "INSERT INTO builds (id, project_id, version_id, user_id, message_seq, message_id,"
        " request, status, changes, created_at)"
        " SELECT gen_random_uuid(), $1, 'v', 'crowd', n, gen_random_uuid(), 'x', 'queued',"
        " '[{\"revision\": 1, \"status\": \"queued\", \"attempt\": 0, \"at_us\": 1}]',"
        " now() - interval '1 hour' + n * interval '1 ms' FROM generate_series(1, $2::int) n",
        project_id, count,
    )  # fmt: skip


def _projects(builds: Sequence[Build]) -> list[str]:
    return sorted(build.project_id for build in builds)


async def test_ten_thousand_queued_builds_delay_another_project_by_one_turn(
    rows: BuildRows, own_database: Database
) -> None:
    """§8: the project with the fewest running builds is next, however long other queues are."""
    await _queue_many(own_database, "a", 10_000)
    (first,) = await rows.leases.claim("w", 1)
    (lone,) = await _ask(rows, "b")
    (second,) = await rows.leases.claim("w", 1)
    assert (first.project_id, second.id) == ("a", lone)


async def test_a_worker_with_room_for_many_takes_from_each_project_in_turn(
    rows: BuildRows, own_database: Database
) -> None:
    """§8: one claim of several builds is as fair as several claims."""
    await _queue_many(own_database, "a", 100)
    await _ask(rows, "b", 2)
    await _ask(rows, "c", 1)
    assert _projects(await rows.leases.claim("w", 3)) == ["a", "b", "c"]
    # Each has one running: the second turn is b's as well as a's.
    assert _projects(await rows.leases.claim("w", 2)) == ["a", "b"]
    assert _projects(await rows.leases.claim("w", 2)) == ["a", "a"]


async def test_among_equal_projects_the_build_that_waited_longest_is_next(rows: BuildRows) -> None:
    """§8: among projects with equally many running builds, the oldest build is claimed."""
    asked = [(await _ask(rows, project_id))[0] for project_id in ("c", "a", "b")]
    claimed = [(await rows.leases.claim("w", 1))[0].id for _ in range(3)]
    assert claimed == asked


async def test_a_project_with_fewer_running_goes_before_a_longer_wait(rows: BuildRows) -> None:
    """§8: also when every project has a running build."""
    await _ask(rows, "a", 2)
    await _ask(rows, "b", 1)
    assert _projects(await rows.leases.claim("w", 3)) == ["a", "a", "b"]
    await _ask(rows, "a", 1)
    await _ask(rows, "b", 1)
    (next_one,) = await rows.leases.claim("w", 1)
    assert next_one.project_id == "b"


async def test_workers_that_claim_at_once_share_all_builds(rows: BuildRows) -> None:
    """§8: claims do not wait for each other, none is claimed twice, none is left."""
    asked = await _ask(rows, "a", 20) + await _ask(rows, "b", 3) + await _ask(rows, "c", 1)

    async def work(worker: int) -> list[str]:
        mine: list[str] = []
        while builds := await rows.leases.claim(f"w{worker}", 2):
            mine += [build.id for build in builds]
        return mine

    taken = [each for mine in await asyncio.gather(*map(work, range(8))) for each in mine]
    # A worker may find all of its candidates being claimed by others, once.
    taken += await work(9)
    assert sorted(taken) == sorted(asked)


async def _ask_patiently(process: BuildRows, project_id: str, user_id: str) -> object:
    """Ask for a build, again while the project's row is locked, as clients do."""
    while True:
        with contextlib.suppress(Contended):
            return await process.requests.ask(project_id, _question(user_id))


@pytest.mark.parametrize("bounds", [BuildBounds(per_user=0), BuildBounds(per_project=0)])
async def test_unfinished_builds_are_bounded_under_concurrent_requests(
    own_database: Database, bounds: BuildBounds
) -> None:
    """§8: the count and the build are one transaction, so two processes cannot pass the bound.

    Nothing is written beyond it, and the end of a build makes room for another.
    """
    log = Log(own_database)
    few = BuildBounds(min(bounds.per_project, 5), min(bounds.per_user, 5))
    processes = [BuildRows(own_database, log, few) for _ in range(4)]
    # Of one project several users may ask, and one user in several projects.
    projects = ["a"] if few.per_project else ["a", "b", "c"]
    users = ["u"] if few.per_user else [f"u{n}" for n in range(20)]
    asks = [
        _ask_patiently(processes[n % 4], projects[n % len(projects)], users[n % len(users)])
        for n in range(20)
    ]
    results = await asyncio.gather(*asks, return_exceptions=True)
    refused = [each for each in results if isinstance(each, TooManyBuilds)]
    assert len(refused) == 15
    assert sum([await log.head(project_id) for project_id in projects]) == 5
    (build,) = await processes[0].leases.claim("w", 1)
    await processes[0].ends.finish(build, "completed")
    assert (await processes[1].requests.ask("a", _question("u"))).build.status == "queued"


async def test_a_repeat_gets_its_first_result_at_the_bound(own_database: Database) -> None:
    """G5: no bound refuses a client_msg_id that was committed."""
    rows = BuildRows(own_database, Log(own_database), BuildBounds(1, 1))
    first = await rows.requests.ask("a", _question(client_msg_id="c1"))
    with pytest.raises(TooManyBuilds):
        await rows.requests.ask("a", _question(client_msg_id="c2"))
    again = await rows.requests.ask("a", _question(client_msg_id="c1"))
    assert (again.appended.duplicate, again.build.id) == (True, first.build.id)


async def test_a_released_lease_is_no_attempt(rows: BuildRows) -> None:
    """§8: another worker continues the attempt with a higher revision, however often."""
    (build_id,) = await _ask(rows, "a")
    revision = 0
    for deploy in range(10):
        (build,) = await rows.leases.claim(f"w{deploy}", 1, lease_s=3600)
        assert (build.id, build.status, build.attempt) == (build_id, "in_progress", 1)
        assert build.revision > revision
        revision = build.revision
        await rows.leases.release(build)
        # The worker that released it can write no more.
        with pytest.raises(LeaseLost):
            await rows.leases.report(build, progress=1)
        with pytest.raises(LeaseLost):
            await rows.ends.finish(build, "completed")
    (build,) = await rows.leases.claim("last", 1)
    assert [change.status for change in build.changes] == ["queued", "in_progress"]
    assert (await rows.ends.finish(build, "completed")).build.attempt == 1


async def test_lost_leases_end_a_build_after_three_attempts(rows: BuildRows) -> None:
    """§8: a crash loop ends, also with released leases in between."""
    (build_id,) = await _ask(rows, "a")
    for attempt in range(1, MAX_ATTEMPTS + 1):
        (given_back,) = await rows.leases.claim("gentle", 1, lease_s=3600)
        await rows.leases.release(given_back)
        assert await rows.ends.fail_abandoned() == []
        (lost,) = await rows.leases.claim("crashing", 1, lease_s=-1)
        assert (given_back.attempt, lost.attempt) == (attempt, attempt)
    assert await rows.leases.claim("other", 1) == []
    (finished,) = await rows.ends.fail_abandoned()
    assert (finished.build.id, finished.build.status) == (build_id, "failed")


async def test_an_external_worker_claims_a_released_build(rows: BuildRows) -> None:
    """§8: a claim of one build by its id counts attempts in the same way."""
    (build_id,) = await _ask(rows, "a")
    build = await rows.leases.claim_one("a", build_id, "w1", lease_s=3600)
    await rows.leases.release(build)
    again = await rows.leases.claim_one("a", build_id, "w2", lease_s=-1)
    lost = await rows.leases.claim_one("a", build_id, "w3", lease_s=3600)
    assert (build.attempt, again.attempt, lost.attempt) == (1, 1, 2)
    assert uuid.UUID(lost.id) == uuid.UUID(build_id)
