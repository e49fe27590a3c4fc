"""docs/protocol.md G1 and G5 on a real Postgres: seqs without gaps, repeats, units, history."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import msgspec
import pytest

from service.operate.embedded import free_port
from streams.log.database import Database
from streams.log.log import PAGE_BYTES, Appended, Log, Unit
from streams.model.errors import IdempotencyMismatch, LogUnavailable, ProjectNotFound, StreamsError
from streams.model.events import Message, NewMessage, encode, prepare
from streams.model.ids import MAX_SEQ
from tests.integration.conftest import NewProject
from tests.support.waiting import wait_until


class _Abort(Exception):
    """Ends a transaction without a commit."""


def _unit(project: str, *texts: str, ids: bool = False, user: str = "u", **more: Any) -> Unit:
    return Unit(
        project,
        tuple(
            prepare(
                NewMessage(
                    user_id=user, text=text, client_msg_id=f"id-{text}" if ids else None, **more
                )
            )
            for text in texts
        ),
    )


def _appended(result: list[Appended] | StreamsError) -> list[Appended]:
    assert not isinstance(result, StreamsError), result
    return result


def _seqs(result: list[Appended] | StreamsError) -> list[int]:
    return [each.message.seq for each in _appended(result)]


async def _texts(log: Log, project: str) -> list[str]:
    return [message.content.text for message in await log.read(project, limit=1000)]


async def test_seqs_are_1_2_3(log: Log, project: str) -> None:
    """G1: the messages of the log are 1..head without a gap, in the order of the batch."""
    (result,) = await log.append([_unit(project, "a", "b", "c")])
    assert _seqs(result) == [1, 2, 3]
    assert await _texts(log, project) == ["a", "b", "c"]
    assert await log.head(project) == 3


async def test_the_next_batch_goes_on_where_the_last_one_ended(log: Log, project: str) -> None:
    """G1: in commit order."""
    await log.append([_unit(project, "a", "b")])
    (result,) = await log.append([_unit(project, "c")])
    assert _seqs(result) == [3]


async def test_one_batch_numbers_each_project_by_itself(log: Log, new_project: NewProject) -> None:
    """§1: seq is a per-project integer."""
    one, two = await new_project(), await new_project()
    results = await log.append([_unit(one, "a"), _unit(two, "b", "c"), _unit(one, "d")])
    assert [_seqs(result) for result in results] == [[1], [1, 2], [2]]


async def test_concurrent_appends_leave_no_gap(log: Log, project: str) -> None:
    """G1: with any number of writers and processes."""

    async def write(writer: int) -> list[int]:
        seqs = []
        for number in range(10):
            texts = [f"{writer}-{number}-{k}" for k in range(1 + (writer + number) % 4)]
            (result,) = await log.append([_unit(project, *texts)])
            seqs += _seqs(result)
        return seqs

    written = await asyncio.gather(*(write(writer) for writer in range(8)))
    everything = sorted(seq for seqs in written for seq in seqs)
    assert everything == list(range(1, len(everything) + 1))
    assert [m.seq for m in await log.read(project, limit=1000)] == everything


async def test_a_reader_never_sees_a_message_before_its_predecessors(
    log: Log, project: str
) -> None:
    """I1: if seq n is visible to a reader, 1..n are."""
    done = asyncio.Event()
    seen: list[list[int]] = []

    async def read() -> None:
        while not done.is_set():
            seen.append([m.seq for m in await log.read(project, limit=1000)])

    reader = asyncio.create_task(read())
    await asyncio.gather(*(log.append([_unit(project, "a", "b")]) for _ in range(40)))
    done.set()
    await reader
    for seqs in seen:
        assert seqs == list(range(1, len(seqs) + 1))


async def test_an_append_waits_for_the_one_before_it(
    database: Database, log: Log, project: str
) -> None:
    """I1: seq order is commit order: the project's row is locked until commit."""
    async with database.transaction() as session:
        (first,) = await log.append([_unit(project, "first")], session)
        second = asyncio.create_task(log.append([_unit(project, "second")]))
        waiting = await _lock_waiters(database, 1)
        assert waiting == 1
        assert not second.done()
    assert _seqs(first) == [1]
    assert _seqs((await second)[0]) == [2]


async def test_an_aborted_append_leaves_no_gap(database: Database, log: Log, project: str) -> None:
    """I1: the next append takes the same seq."""

    seconds: list[asyncio.Task[list[list[Appended] | StreamsError]]] = []

    async def abort() -> None:
        async with database.transaction() as session:
            await log.append([_unit(project, "gone")], session)
            seconds.append(asyncio.create_task(log.append([_unit(project, "stays")])))
            await _lock_waiters(database, 1)
            raise _Abort

    with pytest.raises(_Abort):
        await abort()
    assert _seqs((await seconds[0])[0]) == [1]


async def test_batches_over_the_same_projects_never_deadlock(
    log: Log, new_project: NewProject
) -> None:
    """docs/design.md: rows are locked in order of id, so two processes cannot deadlock."""
    projects = [await new_project(prefix) for prefix in ("a", "Z", "_", "0", "z", "B")]

    async def write(seed: int) -> None:
        chooser = random.Random(seed)
        for _ in range(10):
            order = chooser.sample(projects, len(projects))
            await log.append([_unit(each, "x") for each in order])

    await asyncio.gather(*(write(seed) for seed in range(6)))
    assert set((await log.heads(projects)).values()) == {60}


async def test_a_repeat_gets_the_first_result(log: Log, project: str) -> None:
    """G5: posting the same client_msg_id again adds nothing and returns the first result."""
    (first,) = await log.append([_unit(project, "a", ids=True)])
    (again,) = await log.append([_unit(project, "a", ids=True)])
    assert _appended(again)[0].duplicate
    assert encode(_appended(again)[0].message) == encode(_appended(first)[0].message)
    assert await log.head(project) == 1


async def test_a_repeat_among_new_messages_takes_no_seq(log: Log, project: str) -> None:
    """G1 and G5: the new messages get consecutive seqs."""
    await log.append([_unit(project, "a", ids=True)])
    (result,) = await log.append([_unit(project, "b", "a", "c", ids=True)])
    assert [(e.message.seq, e.duplicate) for e in _appended(result)] == [
        (2, False), (1, True), (3, False),
    ]  # fmt: skip


async def test_concurrent_equal_posts_give_one_message(log: Log, project: str) -> None:
    """G5: also across processes: the second waits for the first, then finds its message."""
    results = await asyncio.gather(*(log.append([_unit(project, "a", ids=True)]) for _ in range(8)))
    outcomes = [_appended(result)[0] for (result,) in results]
    assert {each.message.seq for each in outcomes} == {1}
    assert sorted(each.duplicate for each in outcomes) == [False] + [True] * 7
    assert len({each.message.message_id for each in outcomes}) == 1


async def test_another_content_under_an_id_is_a_mismatch(log: Log, project: str) -> None:
    """G5: 409 `IDEMPOTENCY_MISMATCH`; nothing is written."""
    await log.append([_unit(project, "a", "b", ids=True)])
    changed = msgspec.structs.replace(prepare(
        NewMessage(user_id="u", text="changed", client_msg_id="id-b")
    ))  # fmt: skip
    (result,) = await log.append([Unit(project, (changed,))])
    assert isinstance(result, IdempotencyMismatch)
    assert (result.client_msg_id, result.seq, result.index) == ("id-b", 2, 0)
    assert await log.head(project) == 2


async def test_the_same_id_of_another_user_or_project_is_no_repeat(
    log: Log, new_project: NewProject
) -> None:
    """G5: a client_msg_id belongs to one user in one project."""
    one, two = await new_project(), await new_project()
    results = await log.append(
        [
            _unit(one, "a", ids=True, user="u1"),
            _unit(one, "a", ids=True, user="u2"),
            _unit(two, "a", ids=True, user="u1"),
        ]
    )
    assert [_appended(result)[0].duplicate for result in results] == [False] * 3


async def test_ids_differ_by_case_and_accents(log: Log, project: str) -> None:
    """G5: ids are compared byte by byte."""
    for text in ("x", "X", "é", "e\u0301"):
        (result,) = await log.append([_unit(project, text, ids=True)])
        assert not _appended(result)[0].duplicate


async def test_a_unit_is_written_whole_or_not_at_all(log: Log, project: str) -> None:
    """§4, batch: with one mismatch nothing of it is written."""
    await log.append([_unit(project, "a", ids=True)])
    other = prepare(NewMessage(user_id="u", text="other", client_msg_id="id-a"))
    unit = _unit(project, "new-1", "new-2", ids=True)
    (result,) = await log.append([Unit(project, (unit.messages[0], other, unit.messages[1]))])
    assert isinstance(result, IdempotencyMismatch)
    assert result.index == 1
    assert await _texts(log, project) == ["a"]


async def test_a_refused_unit_does_not_affect_the_others(log: Log, project: str) -> None:
    """Group commit: units in one transaction do not fail each other and leave no gap."""
    await log.append([_unit(project, "a", ids=True)])
    bad = Unit(project, (prepare(NewMessage(user_id="u", text="x", client_msg_id="id-a")),))
    results = await log.append(
        [_unit(project, "b"), bad, _unit("no-such-project", "c"), _unit(project, "d")]
    )
    assert _seqs(results[0]) == [2]
    assert isinstance(results[1], IdempotencyMismatch)
    assert isinstance(results[2], ProjectNotFound)
    assert _seqs(results[3]) == [3]


async def test_timestamps_grow_with_seqs(log: Log, project: str) -> None:
    """§6: the time is taken after the lock, so it never decreases with growing seq."""
    await asyncio.gather(*(log.append([_unit(project, "x")]) for _ in range(40)))
    times = [message.timestamp for message in await log.read(project)]
    assert times == sorted(times)


@pytest.mark.parametrize(
    "message",
    [
        NewMessage(user_id="u", text="plain"),
        NewMessage(user_id="ünï@漢", text="\n\r\u2028\x01🧵 \\ \" '", client_msg_id="ı∂"),
        NewMessage(user_id="u", text="t", parent_id="m1", mode="build", type="system",
                   actor_type="worker"),
        NewMessage(user_id="u", text="t", metadata={
            "z": 1, "a": [1.5, 1e300, -0.0, True, None, 2**53 - 1], "": {"nested": "\u2028"},
            "text": "\x01 \ud7ff 🧵", "build_id": "b", "response_data": {"type": "x"},
        }),
        NewMessage(user_id="u", text="t", metadata={"nul": "\x00"}),
        NewMessage(user_id="u", text="t", metadata={"big": 10**30}),
    ],
)  # fmt: skip
async def test_the_history_returns_a_message_byte_for_byte(
    log: Log, project: str, message: NewMessage
) -> None:
    """§4: a message of the history equals the data of its event."""
    (result,) = await log.append([Unit(project, (prepare(message),))])
    (read,) = await log.read(project)
    assert encode(read) == encode(_appended(result)[0].message)
    assert msgspec.json.decode(encode(read), type=Message).content.text == message.text


async def test_history_bounds_are_exclusive(log: Log, project: str) -> None:
    """§4: `after_seq` and `before_seq` are exclusive bounds, ascending or descending."""
    await log.append([_unit(project, *"abcdefg")])
    up = await log.read(project, after=2, before=6)
    down = await log.read(project, after=2, before=6, limit=2, descending=True)
    assert [m.seq for m in up] == [3, 4, 5]
    assert [m.seq for m in down] == [5, 4]


async def test_a_page_has_the_head(log: Log, project: str) -> None:
    """§4: `headSeq` beside the messages."""
    await log.append([_unit(project, *"abc")])
    page = await log.page(project, after=0, before=3, limit=10, descending=False)
    assert ([m.seq for m in page.messages], page.head) == ([1, 2], 3)


async def test_heads_of_missing_projects_are_left_out(log: Log, project: str) -> None:
    """The heads poll asks for many projects at once."""
    assert await log.heads([project, "no-such-project"]) == {project: 0}


async def test_only_heads_that_differ_are_returned(
    log: Log, new_project: NewProject, project: str
) -> None:
    """The heads poll asks for thousands twice a second, and few have changed."""
    other = await new_project()
    await log.append([_unit(project, *"abc"), _unit(other, "a")])
    asked = [project, other, "no-such-project"]
    assert await log.heads_unlike(asked, [3, 1, 7]) == {}
    assert await log.heads_unlike(asked, [2, 5, 7]) == {project: 3, other: 1}
    assert await log.heads_unlike([], []) == {}


async def test_the_head_of_a_missing_project_is_an_error(log: Log) -> None:
    """It is not 0."""
    with pytest.raises(ProjectNotFound):
        await log.head("no-such-project")


async def test_a_full_batch_of_large_messages_is_one_commit(log: Log, project: str) -> None:
    """§4: a batch of 500, and texts of 64 KiB."""
    (result,) = await log.append([_unit(project, *(str(n) for n in range(500)), ids=True)])
    assert _seqs(result) == list(range(1, 501))
    (large,) = await log.append([_unit(project, *["x" * 65_536] * 10)])
    assert _seqs(large) == list(range(501, 511))


async def test_an_unreachable_postgres_is_unavailable() -> None:
    """§4: 503 `STORE_UNAVAILABLE`; no error of the driver leaves its file."""
    database = await Database.open(f"postgresql://x@127.0.0.1:{free_port()}/x", timeout_s=2)
    try:
        with pytest.raises(LogUnavailable):
            await Log(database).heads(["p"])
    finally:
        await database.close()


async def _lock_waiters(database: Database, wanted: int) -> int:
    """Wait until `wanted` statements of the database wait for a lock; return their number."""
    async with asyncio.timeout(10):
        while True:
            rows = await database.fetch(
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
            if rows[0][0] >= wanted:
                return int(rows[0][0])
            await asyncio.sleep(0.01)


async def test_batches_of_the_same_projects_do_not_deadlock(database_url: str) -> None:
    """G1, docs/design.md: rows are locked in order of id, whatever order a plan reads them in.

    One batch's plan reads the table in physical order (z, m, a), the other's the index (a, m, z).
    Without the order each would lock its first row, wait for m, and then wait for the other's.
    """
    table_order, index_order = await asyncio.gather(
        Database.open(f"{database_url}?enable_indexscan=off&enable_bitmapscan=off"),
        Database.open(f"{database_url}?enable_seqscan=off&enable_bitmapscan=off"),
    )
    other = await Database.open(database_url)
    try:
        for project in ("z", "m", "a"):
            await other.execute(
                "INSERT INTO projects (id, owner_id, name) VALUES ($1, 'owner', 'x')", project
            )

        async def waiting() -> int:
            rows = await other.fetch(
                "SELECT count(*) AS n FROM pg_stat_activity"
                " WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
            return int(rows[0]["n"])

        async def wait_for(number: int) -> None:
            async def reached() -> bool:
                return await waiting() == number

            await wait_until(reached, what=f"{number} batches that wait")

        async with asyncio.TaskGroup() as group:
            async with other.transaction() as session:
                await session.execute("SELECT 1 FROM projects WHERE id = 'm' FOR UPDATE")
                batches = []
                for database, order in ((table_order, "zma"), (index_order, "amz")):
                    units = [_unit(project, "x") for project in order]
                    batches.append(group.create_task(Log(database).append(units)))
                    await wait_for(len(batches))
        assert [_seqs(result) for batch in batches for result in batch.result()] == [
            [1], [1], [1], [2], [2], [2],
        ]  # fmt: skip
    finally:
        for database in (table_order, index_order, other):
            await database.close()


async def test_a_read_only_session_is_not_reused(database_url: str) -> None:
    """Otherwise its writes would fail after the server accepts writes again."""
    admin = await Database.open(database_url)
    database = await Database.open(f"{database_url}?default_transaction_read_only=on", size=1)
    try:
        await admin.execute("INSERT INTO projects (id, owner_id, name) VALUES ('p', 'o', 'x')")
        sessions = "SELECT pg_backend_pid() AS pid"
        before = (await database.fetch(sessions))[0]["pid"]
        for write in (
            Log(database).append([_unit("p", "x")]),
            database.execute("DELETE FROM projects"),
            _in_transaction(database),
        ):
            with pytest.raises(LogUnavailable):
                await write
            pid = (await database.fetch(sessions))[0]["pid"]
            assert pid != before
            before = pid
    finally:
        await database.close()
        await admin.close()


async def _in_transaction(database: Database) -> None:
    async with database.transaction() as session:
        await session.execute("DELETE FROM projects")


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("where", ["text", "metadata"])
async def test_a_read_is_bounded_in_bytes(
    log: Log, project: str, where: str, descending: bool
) -> None:
    """§4: a page has about 1 MiB of texts and metadata and at least one message, without gaps."""
    large = "x" * 60_000
    metadata = {"k": large} if where == "metadata" else None
    text = large if where == "text" else "small"
    for _ in range(4):
        await log.append([_unit(project, *[text] * 10, metadata=metadata)])
    seqs: list[int] = []
    while True:
        page = await log.slice(
            project,
            after=0 if descending else max(seqs, default=0),
            before=min(seqs, default=MAX_SEQ) if descending else MAX_SEQ,
            limit=500,
            descending=descending,
        )
        if not page.messages:
            break
        assert len(page.messages) <= PAGE_BYTES // 60_000 + 1
        assert page.is_cut == (len(page.messages) > PAGE_BYTES // 60_000)
        seqs += [message.seq for message in page.messages]
    assert seqs == (list(range(40, 0, -1)) if descending else list(range(1, 41)))
    (one,) = await log.read(project, limit=500, max_bytes=1)
    assert one.seq == 1


async def test_small_messages_are_not_cut(log: Log, project: str) -> None:
    """§4: `limit` messages where they fit."""
    await log.append([_unit(project, *["x" * 1000] * 500)])
    page = await log.slice(project, after=0, limit=400)
    assert (len(page.messages), page.is_cut) == (400, False)
