"""The event log against a list: real Postgres, real Redis, two event logs as of two processes.

After every step: I1 the log is the list, numbered 1..n; I2 the window is a contiguous run of the
log's messages that ends at or before head; I3 and G3 every follower has seen a contiguous run
from its cursor on. At the end every follower has seen everything (docs/design.md).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from itertools import count
from typing import cast

import msgspec
import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from service.operate.embedded import PostgresServer, RedisServer
from streams.eventlog import EventLog, EventLogConfig
from streams.log.log import Appended, Unit
from streams.model.errors import IdempotencyMismatch
from streams.model.events import NewMessage, encode, prepare
from streams.model.ids import EntryId
from streams.window import keys
from tests.support.follower import Follower
from tests.support.waiting import wait_until

_numbers = count(1)
_config = EventLogConfig(heads_poll_s=0.05, tail_memory_bytes=1)


class _Posted(msgspec.Struct):
    """A message of the list: what was appended, and the data that the log returned."""

    text: str
    client_msg_id: str | None
    data: bytes


class LogMachine(RuleBasedStateMachine):
    """The model is `posted`: message n is `posted[n - 1]`."""

    def __init__(self, database_url: str, redis_url: str) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.stack = contextlib.AsyncExitStack()
        self.project = f"model-{next(_numbers)}"
        self.redis = redis.Redis.from_url(redis_url)
        self.key = keys.stream(self.project)
        self.posted: list[_Posted] = []
        self.transient: list[EntryId] = []
        self.followers: list[tuple[int, Follower]] = []
        self.old_stream: bytes | None = None
        self.logs: list[EventLog] = self.runner.run(self._open(database_url, redis_url))

    async def _open(self, database_url: str, redis_url: str) -> list[EventLog]:
        logs = [
            await self.stack.enter_async_context(
                EventLog.open(database_url, redis_url, config=_config)
            )
            for _ in range(2)
        ]
        await logs[0].projects.create(self.project, "u", "x")
        return logs

    @property
    def head(self) -> int:
        """The highest seq of the list."""
        return len(self.posted)

    # Writing.

    @rule(which=st.integers(0, 1), size=st.sampled_from([1, 1, 2, 5, 130]), named=st.booleans())
    def append(self, which: int, size: int, named: bool) -> None:
        messages = [
            NewMessage(
                user_id="u",
                text=f"{self.head + k}",
                client_msg_id=f"c{self.head + k}" if named else None,
            )
            for k in range(1, size + 1)
        ]
        self._note(
            self.runner.run(self.logs[which].append_many(self.project, messages)), fresh=size
        )

    @rule(texts=st.integers(2, 6))
    def append_in_both_at_once(self, texts: int) -> None:
        async def both() -> list[list[Appended]]:
            return await asyncio.gather(
                *(
                    self.logs[k % 2].append_many(
                        self.project, [NewMessage(user_id="u", text=f"at once {k}")]
                    )
                    for k in range(texts)
                )
            )

        results = self.runner.run(both())
        appended = sorted((each for (each,) in results), key=lambda each: each.message.seq)
        self._note(appended, fresh=texts)

    @precondition(lambda self: any(each.client_msg_id for each in self.posted))
    @rule(which=st.integers(0, 1), data=st.data())
    def repeat(self, which: int, data: st.DataObject) -> None:
        seq = data.draw(st.sampled_from(self._named()))
        first = self.posted[seq - 1]
        message = NewMessage(user_id="u", text=first.text, client_msg_id=first.client_msg_id)
        (again,) = self.runner.run(self.logs[which].append_many(self.project, [message]))
        assert (again.duplicate, encode(again.message)) == (True, first.data)

    @precondition(lambda self: any(each.client_msg_id for each in self.posted))
    @rule(which=st.integers(0, 1), data=st.data())
    def mismatch(self, which: int, data: st.DataObject) -> None:
        first = self.posted[data.draw(st.sampled_from(self._named())) - 1]
        messages = [
            NewMessage(user_id="u", text="new"),
            NewMessage(user_id="u", text="another text", client_msg_id=first.client_msg_id),
        ]
        with pytest.raises(IdempotencyMismatch):
            self.runner.run(self.logs[which].append_many(self.project, messages))

    @rule(size=st.sampled_from([1, 3, 250]))
    def commit_and_die_before_publishing(self, size: int) -> None:
        messages = tuple(prepare(NewMessage(user_id="u", text="unpublished")) for _ in range(size))
        unit = Unit(self.project, messages)
        (appended,) = self.runner.run(self.logs[0].log.append([unit]))
        assert isinstance(appended, list)
        self._note(appended, fresh=size)

    @rule(which=st.integers(0, 1))
    def append_transient(self, which: int) -> None:
        given = self.runner.run(
            self.logs[which].append_transient(self.project, "message.delta", b'{"x":1}')
        )
        assert given.seq <= self.head
        self.transient.append(given)

    def _note(self, appended: list[Appended], *, fresh: int) -> None:
        assert [each.duplicate for each in appended] == [False] * fresh
        for each in appended:
            assert each.message.seq == self.head + 1
            text, name = each.message.content.text, each.message.client_msg_id
            self.posted.append(_Posted(text, name, encode(each.message)))

    def _named(self) -> list[int]:
        return [seq for seq, each in enumerate(self.posted, start=1) if each.client_msg_id]

    # What happens to Redis.

    @rule()
    def flush_redis(self) -> None:
        self.redis.flushall()

    @rule()
    def trim_the_stream(self) -> None:
        self.redis.xtrim(self.key, maxlen=3, approximate=False)

    @rule()
    def remember_the_stream(self) -> None:
        self.old_stream = self.redis.dump(self.key)

    @precondition(lambda self: self.old_stream is not None)
    @rule()
    def restore_the_old_stream(self) -> None:
        assert self.old_stream is not None
        self.redis.delete(self.key)
        self.redis.restore(self.key, 600_000, self.old_stream)

    # Reading.

    @precondition(lambda self: len(self.followers) < 6)
    @rule(which=st.integers(0, 1), back=st.sampled_from([0, 1, 199, 200, 201, 10_000]))
    def follow(self, which: int, back: int) -> None:
        async def begin() -> Follower:
            return Follower(self.logs[which], self.project, max(0, self.head - back))

        self.followers.append((max(0, self.head - back), self.runner.run(begin())))

    @rule()
    def let_time_pass(self) -> None:
        self.runner.run(asyncio.sleep(0.06))

    @rule()
    def settle(self) -> None:
        async def all_caught_up() -> None:
            await wait_until(
                lambda: all(
                    cursor == self.head or (f.seqs and f.seqs[-1] == self.head)
                    for cursor, f in self.followers
                ),
                timeout_s=10,
                what=f"head {self.head} at {[f.seqs[-1:] for _, f in self.followers]}",
            )

        self.runner.run(all_caught_up())

    # What always holds.

    @invariant()
    def i1_the_log_is_the_list(self) -> None:
        rows = self.runner.run(self.logs[0].log.read(self.project, limit=10_000))
        assert [row.seq for row in rows] == list(range(1, self.head + 1))
        assert [encode(row) for row in rows] == [each.data for each in self.posted]

    @invariant()
    def i2_the_window_is_a_run_of_the_log(self) -> None:
        found = self.runner.run(
            self.logs[0].window.read_after(self.project, EntryId(0, 0), count=5000)
        )
        messages = [each for each in found if each.id.k == 0]
        if messages:
            first, last = messages[0].id.seq, messages[-1].id.seq
            assert last <= self.head
            assert [each.id.seq for each in messages] == list(range(first, last + 1))
            assert [m.data for m in messages] == [p.data for p in self.posted[first - 1 : last]]
            assert len(messages) <= 200

    @invariant()
    def i3_every_follower_has_a_run_from_its_cursor_on(self) -> None:
        for cursor, follower in self.followers:
            if follower.task.done():
                follower.task.result()
            seqs = follower.seqs
            assert seqs == list(range(cursor + 1, cursor + len(seqs) + 1))
            for event in follower.events:
                if event.seq is not None:
                    assert event.data == self.posted[event.seq - 1].data

    def teardown(self) -> None:
        try:
            self.settle()
            self.i3_every_follower_has_a_run_from_its_cursor_on()
        finally:
            self.runner.run(self._close())
            self.runner.close()
            self.redis.close()

    async def _close(self) -> None:
        for _, follower in self.followers:
            follower.task.cancel()
        await asyncio.gather(*(f.task for _, f in self.followers), return_exceptions=True)
        await self.stack.aclose()


def test_the_event_log_is_a_list(
    postgres: PostgresServer, template_database: str, redis_server: RedisServer
) -> None:
    """I1 to I3 (docs/design.md) and G1 to G5 (docs/protocol.md), after any steps in any order."""
    url = postgres.create_database("model", template=template_database)
    machine = cast(
        "type[RuleBasedStateMachine]", functools.partial(LogMachine, url, redis_server.url)
    )
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=12,
            stateful_step_count=25,
            suppress_health_check=list(HealthCheck),
        ),
    )
