"""One write a batch to all who stand at the end of a tail; a blocked one leaves the group."""

from __future__ import annotations

import asyncio
import re

import pytest

from streams.model.ids import EntryId
from streams.tail.tail import offer_all
from tests.support.entries import message_entry
from tests.support.stream_harness import StreamHarness, stream_harness
from tests.support.waiting import wait_until


async def test_all_connections_get_the_same_bytes() -> None:
    """§6: a message is framed once per process; its HTTP framing too."""
    async with stream_harness() as project:
        _, one, _ = await project.connect_live()
        _, two, _ = await project.connect_live()
        project.arrive()
        await wait_until(lambda: bool(one.seqs("message.new")), what="the message")
        assert one.chunks[-1] is two.chunks[-1]


async def test_a_batch_is_one_write() -> None:
    """docs/design.md, coalescing: woken, everything up to the tail's end goes in one send."""
    async with stream_harness() as project:
        _, wire, _ = await project.connect_live()
        before = len(wire.chunks)
        project.arrive(10)
        await wait_until(lambda: len(wire.seqs("message.new")) == 10, what="ten messages")
        assert len(wire.chunks) - before == 1


async def test_what_arrives_within_the_pause_goes_together() -> None:
    """A deliberate pause at high rates trades latency for CPU, and is a setting."""
    async with stream_harness(coalesce_s=0.05) as project:
        _, wire, _ = await project.connect_live()
        project.arrive()
        await wait_until(lambda: wire.seqs("message.new") == [1], what="the first at once")
        before = len(wire.chunks)
        for _ in range(5):
            project.arrive()
        await wait_until(lambda: len(wire.seqs("message.new")) == 6, what="the others")
        assert len(wire.chunks) - before == 1


async def test_what_arrives_goes_together_when_memory_is_full_too() -> None:
    """A tail is full after some minutes of any busy project: no reason to write each entry."""
    async with stream_harness(coalesce_s=3600.0, max_entries=300) as project:
        _, wire, _ = await project.connect_live()
        project.arrive(150)
        project.arrive(150)
        await wait_until(lambda: len(wire.seqs("message.new")) == 300, what="the first at once")
        for _ in range(200):
            project.arrive()
        assert len(wire.seqs("message.new")) == 300


async def test_entries_that_fill_half_of_memory_are_written_at_once() -> None:
    """Bytes are bounded as entries are: what is not written must not leave memory."""
    async with stream_harness(coalesce_s=3600.0) as project:
        _, wire, _ = await project.connect_live()
        project.arrive()
        await wait_until(lambda: wire.seqs("message.new") == [1], what="the first at once")
        project.tail.max_bytes = 2000
        while len(wire.seqs("message.new")) == 1:
            project.arrive()
        assert project.tail.last_seq == len(wire.seqs("message.new"))


@pytest.mark.parametrize(
    ("takes_s", "pause_s"), [(0.0002, 0.0006), (0.0004, 0.0008), (0.0005, 0.001), (1.0, 0.001)]
)
async def test_the_pause_grows_with_what_a_write_takes(takes_s: float, pause_s: float) -> None:
    """Writing to a crowd takes a bounded share of the process; to a few it waits the least."""
    async with stream_harness(
        coalesce_s=0.0006, coalesce_most_s=0.001, write_takes_s=takes_s
    ) as project:
        _, wire, _ = await project.connect_live()
        project.arrive()
        await wait_until(lambda: wire.seqs("message.new") == [1], what="the first at once")
        assert project.broadcast.pause_s == pytest.approx(pause_s)


class _Clock:
    """A clock that moves when told to."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def _written_ms(project: StreamHarness) -> tuple[float, float]:
    """How many writes were measured, and their times in all."""
    text = project.metrics.render()[0].decode()
    found = dict(re.findall(r"^publish_to_sse_write_ms_(count|sum) (\S+)$", text, re.M))
    return float(found["count"]), float(found["sum"])


async def test_what_is_written_at_once_is_measured_from_its_own_arrival() -> None:
    """§9: from an entry's arrival; the write before it may be an hour ago."""
    clock = _Clock()
    async with stream_harness(clock=clock) as project:
        _, wire, _ = await project.connect_live()
        project.arrive()
        await wait_until(lambda: wire.seqs("message.new") == [1], what="the first")
        clock.now_s += 2414
        # So little memory that an entry is written as it arrives.
        project.tail.max_bytes = 1
        project.arrive()
        assert wire.seqs("message.new") == [1, 2]
        assert _written_ms(project) == (2, 0)


async def test_a_write_is_measured_from_its_oldest_entry() -> None:
    """§9: whatever makes the write happen: here a signal, and a connection that joins."""
    clock = _Clock()
    async with stream_harness(coalesce_s=3600.0, clock=clock) as project:
        _, wire, _ = await project.connect_live()
        project.arrive()
        await wait_until(lambda: wire.seqs("message.new") == [1], what="the first at once")
        for write in ("signal", "join"):
            count, total_ms = _written_ms(project)
            for _ in range(2):
                project.arrive()
                clock.now_s += 1
            if write == "signal":
                project.tail.signal(b"event: typing.start\ndata: {}\n\n")
            else:
                await project.connect_live()
            assert _written_ms(project) == (count + 1, total_ms + 2000)


async def test_the_first_write_waits_for_nothing_however_long_the_machine_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Just after a boot the monotonic clock is near 0: no time stands for "never"."""
    async with stream_harness(coalesce_s=3600.0) as project:
        monkeypatch.setattr(project.broadcast, "_loop", _JustBooted(asyncio.get_running_loop()))
        _, wire, _ = await project.connect_live()
        project.arrive()
        await wait_until(lambda: wire.seqs("message.new") == [1], what="the message")


class _JustBooted:
    """A loop whose clock began a moment ago."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.call_soon = loop.call_soon
        self.call_at = loop.call_at

    def time(self) -> float:
        return 1.0


async def test_without_coalescing_a_crowd_waits_for_nothing_either() -> None:
    """0 is off, whatever the bound is."""
    async with stream_harness(coalesce_s=0.0, coalesce_most_s=3600.0, write_takes_s=1.0) as project:
        _, wire, _ = await project.connect_live()
        project.arrive()
        await wait_until(lambda: wire.seqs("message.new") == [1], what="the message")
        assert project.broadcast.pause_s == 0.0


async def test_many_within_the_pause_are_written_at_once() -> None:
    """Entries must not leave memory before they are written."""
    async with stream_harness(coalesce_s=3600.0) as project:
        _, wire, _ = await project.connect_live()
        project.arrive()
        project.arrive(200)
        project.arrive(200)
        assert len(wire.seqs("message.new")) == 401


async def test_a_blocked_connection_is_left_out_and_the_others_are_served() -> None:
    """§6: a slow client never slows another client."""
    async with stream_harness() as project:
        _, slow, _ = await project.connect_live()
        _, quick, _ = await project.connect_live()
        slow.blocked = True
        project.arrive(3)
        await wait_until(lambda: quick.seqs("message.new") == [1, 2, 3], what="the quick one")
        assert slow.seqs("message.new") == []


async def test_a_connection_that_was_blocked_catches_up_in_order() -> None:
    """§6: a slow client catches up in order, each message exactly once."""
    async with stream_harness() as project:
        _, wire, _ = await project.connect_live()
        project.arrive()
        await wait_until(lambda: wire.seqs("message.new") == [1], what="the first")
        wire.blocked = True
        project.arrive(2)
        project.arrive(2)
        wire.change(blocked=False)
        await wait_until(lambda: len(wire.seqs("message.new")) == 5, what="all")
        project.arrive()
        await wait_until(lambda: len(wire.seqs("message.new")) == 6, what="live again")
        assert wire.seqs("message.new") == [1, 2, 3, 4, 5, 6]


async def test_a_connection_that_fell_out_of_memory_catches_up_from_below() -> None:
    """§6: a slow client falls back to the window and then the log."""
    async with stream_harness(max_entries=4) as project:
        connection, wire, _ = await project.connect_live()
        wire.blocked = True
        project.arrive()
        await wait_until(lambda: not project.broadcast.is_live(connection), what="left out")
        for _ in range(499):
            project.arrive()
        wire.change(blocked=False)
        await wait_until(lambda: len(wire.seqs("message.new")) == 500, what="all")
        assert wire.seqs("message.new") == list(range(1, 501))


async def test_a_batch_larger_than_memory_reaches_a_live_connection_whole() -> None:
    """G3: what is trimmed before it was written is read again from below, not left out."""
    async with stream_harness() as project:
        _, wire, _ = await project.connect_live()
        project.project.append(40)
        big = b"x" * 64_000
        batch = [
            message_entry(seq, data=b'{"seq":%d,"x":"%b"}' % (seq, big)) for seq in range(1, 41)
        ]
        assert offer_all(project.tail, batch) == []
        project.tail.notify()
        await wait_until(lambda: 40 in wire.seqs("message.new"), what="the last message")
        assert wire.seqs("message.new") == list(range(1, 41))


async def test_a_signal_comes_in_order_with_what_came_before_it() -> None:
    """§6: an ephemeral event never overtakes a message that waits for the pause."""
    async with stream_harness(coalesce_s=3600.0) as project:
        _, wire, _ = await project.connect_live()
        project.arrive()
        project.arrive()
        project.tail.signal(b"event: typing.start\ndata: {}\n\n")
        names = [block.split(b"\n")[0] for block in wire.blocks[-3:]]
        assert names == [b"event: message.new", b"event: message.new", b"event: typing.start"]


async def test_a_signal_is_not_kept_for_a_blocked_connection() -> None:
    """§1: an ephemeral event is never stored."""
    async with stream_harness() as project:
        connection, wire, _ = await project.connect_live()
        wire.blocked = True
        project.tail.signal(b"event: typing.start\ndata: {}\n\n")
        wire.change(blocked=False)
        await wait_until(lambda: project.broadcast.is_live(connection), what="live again")
        assert wire.named("typing.start") == []


async def test_a_restarted_log_is_told_before_its_messages() -> None:
    """G3 and §6: seqs of a stream only grow, or `stream.reset` says that they begin anew."""
    async with stream_harness(9) as project:
        _, wire, _ = await project.connect_live()
        project.tail.restart(5, EntryId(5, 0))
        project.project.head = 5
        project.project.stream = []
        project.arrive()
        await wait_until(lambda: wire.seqs("message.new") == [6], what="message 6")
        assert [each["reason"] for each in wire.named("stream.reset")] == ["cursor_ahead"]


async def test_whoever_looks_is_told_what_was_written_to_how_many() -> None:
    """The console's hook: indices of the batch, and the connections that took it."""
    async with stream_harness() as project:
        opened = [await project.connect_live() for _ in range(3)]
        project.arrive()
        await wait_until(lambda: opened[0][1].seqs("message.new") == [1], what="the message")
        writes: list[tuple[int, int, int]] = []
        project.broadcast.on_write = lambda start, end, taken, _: writes.append((start, end, taken))
        opened[2][1].blocked = True
        project.arrive(2)
        await wait_until(lambda: writes != [], what="a write")
        assert writes == [(1, 3, 2)]
        assert project.broadcast.written_seq == 3
