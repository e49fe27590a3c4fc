"""Publishing commits into windows, and healing windows from the log (docs/protocol.md G2)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from streams.log.log import Appended, Log, Unit
from streams.model.events import NewMessage, encode, prepare
from streams.model.ids import EntryId
from streams.runtime.health import Health
from streams.runtime.observer import Observer
from streams.window import publisher as publisher_module
from streams.window.publisher import Publisher
from streams.window.redis_client import RedisClient
from streams.window.redis_probe import RedisProbe
from streams.window.window import Run, Window
from tests.integration.conftest import NewProject
from tests.support.health import fail_redis, recover_redis
from tests.support.waiting import wait_until


class _Gaps(Observer):
    def __init__(self) -> None:
        self.found = 0

    def gap_found(self) -> None:
        self.found += 1


class _World:
    def __init__(self, window: Window, log: Log, health: Health) -> None:
        self.window = window
        self.log = log
        self.health = health
        self.gaps = _Gaps()
        self.publisher = Publisher(window, log, health, self.gaps)

    async def commit(
        self, project: str, count: int = 1, *, text: str = "x"
    ) -> tuple[int, list[bytes]]:
        """Append to the log only; return the first seq and the data."""
        messages = tuple(prepare(NewMessage(user_id="u", text=text)) for _ in range(count))
        (result,) = await self.log.append([Unit(project, messages)])
        assert isinstance(result, list)
        appended: list[Appended] = result
        return appended[0].message.seq, [encode(each.message) for each in appended]

    async def seqs(self, project: str) -> list[int]:
        """The messages in the window."""
        found = await self.window.read_after(project, EntryId(0, 0), count=5000)
        return [each.id.seq for each in found if each.id.k == 0]

    async def wait_seqs(self, project: str, expected: list[int]) -> None:
        """Wait until the window has exactly these messages."""

        async def there() -> bool:
            return await self.seqs(project) == expected

        await wait_until(there, what=f"the window (has {(await self.seqs(project))[-5:]})")


@contextlib.asynccontextmanager
async def _publishing(window: Window, log: Log) -> AsyncIterator[_World]:
    world = _World(window, log, Health(Observer()))
    task = asyncio.create_task(world.publisher.run())
    try:
        yield world
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_commit_is_published(window: Window, log: Log, project: str) -> None:
    """A batch is published by one call of the append script."""
    async with _publishing(window, log) as world:
        world.publisher.submit(project, *(await world.commit(project, 3)))
        await world.publisher.drained()
        assert await world.seqs(project) == [1, 2, 3]


async def test_a_run_that_fills_the_window_is_not_read_from_the_log(
    window: Window, log: Log, project: str
) -> None:
    """Of hundreds of waiting messages only the newest are published: they fill the window."""
    async with _publishing(window, log) as world:
        world.publisher.submit(project, *(await world.commit(project, 2)))
        await world.publisher.drained()
        for commit in [await world.commit(project, 150) for _ in range(3)]:
            world.publisher.submit(project, *commit)
        await world.publisher.drained()
        assert await world.seqs(project) == list(range(253, 453))
        assert world.gaps.found == 0


async def test_commits_submitted_together_are_published_in_order(
    window: Window, log: Log, project: str
) -> None:
    """I2: contiguous runs are joined; others leave a hole, which is healed."""
    async with _publishing(window, log) as world:
        one, two = await world.commit(project, 2), await world.commit(project, 2)
        world.publisher.submit(project, *one)
        world.publisher.submit(project, *two)
        await world.publisher.drained()
        assert await world.seqs(project) == [1, 2, 3, 4]


async def test_what_another_process_committed_and_never_published_is_healed(
    window: Window, log: Log, project: str
) -> None:
    """G2: a hole in the window is filled from the log by the process that finds it."""
    async with _publishing(window, log) as world:
        world.publisher.submit(project, *(await world.commit(project)))
        await world.publisher.drained()
        await world.commit(project, 2)
        world.publisher.submit(project, *(await world.commit(project)))
        await world.wait_seqs(project, [1, 2, 3, 4])


async def test_runs_published_in_the_wrong_order_end_in_order(
    window: Window, log: Log, project: str
) -> None:
    """I2: two processes that commit one after the other may publish in the opposite order."""
    async with _publishing(window, log) as first, _publishing(window, log) as second:
        one, two = await first.commit(project), await first.commit(project)
        second.publisher.submit(project, *two)
        await second.publisher.drained()
        first.publisher.submit(project, *one)
        await first.wait_seqs(project, [1, 2])


async def test_more_than_a_window_of_unpublished_commits_leaves_its_newest(
    window: Window, log: Log, project: str
) -> None:
    """At most a window of messages waits; the window restarts from the newest 200."""
    async with _publishing(window, log) as world:
        for commit in [await world.commit(project, 150) for _ in range(3)]:
            world.publisher.submit(project, *commit)
        await world.wait_seqs(project, list(range(251, 451)))


async def test_a_lost_stream_is_rebuilt_by_the_next_publish(
    window: Window, log: Log, project: str
) -> None:
    """G2: after a loss of Redis the missing messages come from Postgres."""
    async with _publishing(window, log) as world:
        world.publisher.submit(project, *(await world.commit(project, 3)))
        await world.publisher.drained()
        await window.discard(project)
        world.publisher.submit(project, *(await world.commit(project)))
        await world.wait_seqs(project, [1, 2, 3, 4])


async def test_a_diverged_stream_is_replaced_by_the_log(
    window: Window, log: Log, project: str
) -> None:
    """G2: a stream of another log (restored from a backup) is replaced."""
    async with _publishing(window, log) as world:
        one = await world.commit(project, 2)
        await window.append(Run(project, 1, [b'{"messageId":"of another log"}'] * 2))
        world.publisher.submit(project, *one)

        async def replaced() -> bool:
            found = await window.read_after(project, EntryId(0, 0), count=10)
            return [each.data for each in found] == one[1]

        await wait_until(replaced, what="the replaced stream")


async def test_a_stream_ahead_of_its_log_is_replaced(
    window: Window, log: Log, project: str
) -> None:
    """G2: the messages in the stream end at or before head."""
    async with _publishing(window, log) as world:
        await world.commit(project, 2)
        ahead = [b'{"messageId":"%d"}' % number for number in range(9)]
        await window.append(Run(project, 1, ahead))
        world.publisher.heal(project)
        await world.wait_seqs(project, [1, 2])


async def test_a_stream_of_an_empty_log_is_deleted(window: Window, log: Log, project: str) -> None:
    """G2: the messages in the stream end at or before head, which is 0."""
    async with _publishing(window, log) as world:
        await window.append(Run(project, 1, [b'{"messageId":"x"}']))
        world.publisher.heal(project)
        await world.wait_seqs(project, [])


async def test_unpublished_messages_are_healed_when_redis_recovers(
    window: Window, log: Log, project: str
) -> None:
    """G7: no queue keeps failed publishes; their messages are read from the log."""
    async with _publishing(window, log) as world:
        fail_redis(world.health)
        world.publisher.submit(project, *(await world.commit(project, 3)))
        await world.publisher.drained()
        assert await world.seqs(project) == []
        await recover_redis(world.health)
        await world.wait_seqs(project, [1, 2, 3])


async def test_a_redis_that_stops_answering_is_noticed(log: Log, new_project: NewProject) -> None:
    """G7: a failed publish is no error of the append; streams continue from the log."""
    client = RedisClient("redis://127.0.0.1:1/0", timeout_s=0.2)
    async with _publishing(Window(client), log) as world:
        # Soon, not with the next probe: a publish that fails asks for one.
        probing = asyncio.create_task(RedisProbe(client, "a1", world.health, 3600).run())
        project = await new_project()
        world.publisher.submit(project, *(await world.commit(project)))
        await wait_until(lambda: not world.health.redis_up, what="the verdict")
        probing.cancel()
        await asyncio.gather(probing, return_exceptions=True)
    await client.close()


async def test_many_healers_of_one_stream_end_in_order(
    window: Window, log: Log, project: str
) -> None:
    """I2: many processes may heal one window at once, while others publish."""
    async with contextlib.AsyncExitStack() as stack:
        worlds = [await stack.enter_async_context(_publishing(window, log)) for _ in range(4)]

        async def work(world: _World) -> None:
            for number in range(15):
                run = await world.commit(project)
                if number % 3:
                    world.publisher.submit(project, *run)
                else:
                    world.publisher.heal(project)

        await asyncio.gather(*(work(world) for world in worlds))
        worlds[0].publisher.heal(project)
        await worlds[0].wait_seqs(project, list(range(1, 61)))


async def test_messages_above_the_bound_in_bytes_are_healed_from_the_log(
    window: Window, log: Log, new_project: NewProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The publisher's buffer is bounded; messages that it drops are read from the log."""
    monkeypatch.setattr(publisher_module, "_MAX_HELD_BYTES", 3000)
    project, other = await new_project(), await new_project()
    async with _publishing(window, log) as world:
        for _ in range(3):
            world.publisher.submit(project, *(await world.commit(project, 20)))
        await world.wait_seqs(project, list(range(1, 61)))
        # Room again.
        world.publisher.submit(other, *(await world.commit(other)))
        await world.publisher.drained()
        assert await world.seqs(other) == [1]


async def test_a_window_of_large_messages_is_healed_with_the_newest(
    window: Window, log: Log, project: str
) -> None:
    """§2: the window's messages end at head, also where fewer than 200 fit."""
    async with _publishing(window, log) as world:
        for _ in range(10):
            await world.commit(project, 10, text="x" * 60_000)
        world.publisher.heal(project)
        await world.publisher.drained()
        seqs = await world.seqs(project)
        assert seqs == list(range(101 - len(seqs), 101))
        assert len(seqs) > 40
