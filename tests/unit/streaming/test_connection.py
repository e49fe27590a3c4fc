"""One stream from its first byte to its last, as literal bytes (docs/protocol.md §6)."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from service.streaming.outgoing import Outgoing
from service.streaming.stream_frames import refusal
from streams.model.errors import LogUnavailable
from streams.model.ids import EntryId
from streams.model.sse import event_frame
from streams.window.window import Entry
from tests.support.stream_harness import stream_harness
from tests.support.waiting import wait_until


def _open(cursor: str, head: int, truncated: str, source: str, *, position: int) -> bytes:
    return (
        b"event: stream.open\nretry: 2000\n"
        b'data: {"projectId":"p","connectionId":"id","cursor":%b,"headSeq":%d,'
        b'"truncated":%b,"source":"%b"}\nid: %d'
        % (cursor.encode(), head, truncated.encode(), source.encode(), position)
    )


def _live(head: int) -> bytes:
    return b'event: stream.live\ndata: {"projectId":"p","headSeq":%d}' % head


def _names(blocks: list[bytes]) -> list[str]:
    return [block.split(b"\n")[0].removeprefix(b"event: ").decode() for block in blocks]


async def test_the_opening_without_a_cursor() -> None:
    """§6: `stream.open` with `retry:` and `id: <head>`, `stream.live`; live from head."""
    async with stream_harness(7) as project:
        _, wire, _ = await project.connect_live()
        assert wire.blocks == [_open("null", 7, "false", "none", position=7), _live(7)]


async def test_the_opening_of_an_empty_project() -> None:
    """§1: head is 0 when there is no message."""
    async with stream_harness() as project:
        _, wire, _ = await project.connect_live()
        assert wire.blocks == [_open("null", 0, "false", "none", position=0), _live(0)]


async def test_the_opening_with_a_cursor_at_head() -> None:
    """§6: nothing was missed: no replay, source none."""
    async with stream_harness(7) as project:
        _, wire, _ = await project.connect_live(cursor=7)
        assert wire.blocks == [_open("7", 7, "false", "none", position=7), _live(7)]


async def test_missed_messages_are_replayed_before_live() -> None:
    """§6: `id: <cursor>`, `stream.open`, the missed messages, oldest first, `stream.live`."""
    async with stream_harness(7, below=0) as project:
        _, wire, _ = await project.connect_live(cursor=5)
        blocks = wire.blocks
        assert blocks[:1] == [_open("5", 7, "false", "memory", position=5)]
        assert [block.split(b"\n")[::2] for block in blocks[1:3]] == [
            [b"event: message.replay", b"id: 6"],
            [b"event: message.replay", b"id: 7"],
        ]
        assert blocks[3:] == [_live(7)]


async def test_transient_entries_are_replayed_among_the_messages() -> None:
    """§6: with the transient entries that stand among and after them, under their own name."""
    async with stream_harness(2, below=0) as project:
        project.project.append_transient()
        project.project.append()
        project.project.append_transient()
        project.deliver()
        _, wire, _ = await project.connect_live(cursor=1)
        assert _names(wire.blocks[1:]) == [
            "message.replay", "build.status", "message.replay", "build.status", "stream.live",
        ]  # fmt: skip


@pytest.mark.parametrize(("shown", "told"), [(3, [3]), (2, [2]), (1, [1, 2])])
async def test_a_build_that_the_replay_showed_is_not_told_again(
    shown: int, told: list[int]
) -> None:
    """§6: one `build.status` for each unfinished build whose state the replay did not show."""

    def status(revision: int) -> bytes:
        data = {
            "status": "in_progress",
            "content": {"buildId": "b"},
            "metadata": {"revision": revision},
        }
        return msgspec.json.encode(data)

    async with stream_harness(7, below=0) as project:
        project.tail.offer(Entry(EntryId(7, 1), "build.status", status(shown), 0))
        snapshot = ("b", 2, event_frame("build.status", status(2)))
        _, wire, _ = await project.connect(cursor=5, builds=[snapshot])
        await wait_until(lambda: b"stream.live" in wire.data, what="live")
        assert wire.named("build.status") == [msgspec.json.decode(status(n)) for n in told]


async def test_at_most_200_are_replayed_and_the_rest_is_announced() -> None:
    """§6: `replay.end` names the range that was not sent; what follows starts after head."""
    async with stream_harness(500) as project:
        _, wire, _ = await project.connect_live(cursor=10)
        assert wire.seqs("message.replay") == list(range(11, 211))
        (end,) = wire.named("replay.end")
        assert (end["lastReplayedSeq"], end["liveFromSeq"], end["hasMore"]) == (210, 501, True)
        project.arrive()
        await wait_until(lambda: wire.seqs("message.new") == [501], what="the next message")


@pytest.mark.parametrize(("missed", "announced"), [(199, 0), (200, 0), (201, 1)])
async def test_the_cap_is_exactly_200(missed: int, announced: int) -> None:
    """§6: if more than 200 were missed: `replay.end`."""
    async with stream_harness(300) as project:
        _, wire, _ = await project.connect_live(cursor=300 - missed)
        assert len(wire.seqs("message.replay")) == min(missed, 200)
        assert len(wire.named("replay.end")) == announced
        assert wire.named("stream.open")[0]["truncated"] is (announced == 1)


async def test_messages_that_arrive_during_the_replay_come_live_after_it() -> None:
    """G3: attach first, then replay up to where it attached; each exactly once."""
    async with stream_harness(300, below=100) as project:
        connection, wire, _ = await project.connect(cursor=150)
        project.arrive(3)
        await wait_until(lambda: project.broadcast.is_live(connection), what="live")
        assert wire.seqs("message.replay") == list(range(151, 301))
        assert wire.seqs("message.new") == [301, 302, 303]


async def test_a_replay_waits_for_a_client_that_takes_no_more() -> None:
    """§6: a connection is a cursor, not a queue: what is not taken is not read."""
    async with stream_harness(200, below=0) as project:
        connection, wire, _ = await project.connect(cursor=0)
        wire.blocked = True
        await wait_until(lambda: len(wire.chunks) == 1, what="the opening")
        for _ in range(10):
            await asyncio.sleep(0)
        assert len(wire.chunks) == 1
        wire.change(blocked=False)
        await wait_until(lambda: project.broadcast.is_live(connection), what="live")
        assert wire.seqs("message.replay") == list(range(1, 201))


async def test_a_reset_is_told_after_the_opening_and_live_follows() -> None:
    """§6: the cursor is not usable; live from head follows."""
    async with stream_harness(7) as project:
        connection, wire, _ = await project.connect(reset="cursor_ahead")
        await wait_until(lambda: project.broadcast.is_live(connection), what="live")
        assert wire.blocks == [
            _open("null", 7, "false", "none", position=7),
            b"event: stream.reset\nretry: 2000\n"
            b'data: {"projectId":"p","reason":"cursor_ahead","firstSeq":1,"headSeq":7}\nid: 7',
            _live(7),
        ]


async def test_a_cursor_ahead_of_this_process_gets_only_what_is_newer() -> None:
    """G3: another process delivered more already; nothing is sent twice."""
    async with stream_harness(5) as project:
        _, wire, _ = await project.connect(cursor=7)
        await wait_until(lambda: bool(wire.named("stream.live")), what="live")
        project.arrive(3)
        await wait_until(lambda: bool(wire.seqs("message.new")), what="the newer one")
        assert wire.blocks[0].endswith(b"\nid: 7")
        assert wire.seqs("message.new") == [8]


async def test_the_headers_say_what_proxies_must_know() -> None:
    """§6: the type, `no-store, no-transform`, no buffering."""
    async with stream_harness() as project:
        _, wire, _ = await project.connect_live()
        assert wire.headers == [
            (b"content-type", b"text/event-stream; charset=utf-8"),
            (b"cache-control", b"no-store, no-transform"),
            (b"x-accel-buffering", b"no"),
        ]


async def test_what_needs_the_log_is_refused_before_it_opens() -> None:
    """§6: a refusal that passes with time is in-band, so nothing may have been sent."""
    async with stream_harness(300) as project:
        project.project.postgres_answers = False
        with pytest.raises(LogUnavailable):
            await project.connect(cursor=10)


async def test_a_stream_outlives_an_outage_of_the_log() -> None:
    """While Postgres is away open streams stay open, and then go on from their cursor."""
    async with stream_harness(max_entries=2) as project:
        connection, wire, task = await project.connect_live()
        wire.blocked = True
        project.arrive()
        await wait_until(lambda: not project.broadcast.is_live(connection), what="left out")
        for _ in range(299):
            project.arrive()
        project.project.postgres_answers = False
        reads = project.project.log_reads
        wire.change(blocked=False)
        await wait_until(lambda: project.project.log_reads > reads, what="a read that fails")
        assert not task.done()
        project.project.postgres_answers = True
        await wait_until(lambda: len(wire.seqs("message.new")) == 300, what="all")


@pytest.mark.parametrize(
    ("reason", "reconnect"),
    [("token_expired", "false"), ("access_revoked", "false"), ("max_age", "true")],
)
async def test_the_goodbye_says_why(reason: str, reconnect: str) -> None:
    """§6: `stream.closing` with a jittered `retry:`; the reason and whether to come back."""
    async with stream_harness() as project:
        connection, wire, task = await project.connect_live()
        connection.close(reason)  # type: ignore[arg-type]
        assert await task == reason
        head, _, data = wire.blocks[-1].partition(b"\ndata: ")
        assert head.startswith(b"event: stream.closing\nretry: ")
        assert 1000 <= int(head.rpartition(b" ")[2]) <= 3000
        assert data == b'{"reason":"%b","reconnect":%b}' % (reason.encode(), reconnect.encode())
        assert wire.finished


async def test_at_shutdown_the_reconnects_are_spread() -> None:
    """§6: `stream.closing` with a `retry:` spread over a few seconds."""
    async with stream_harness() as project:
        opened = [await project.connect_live() for _ in range(30)]
        for connection, _, _ in opened:
            connection.close("shutdown")
        await asyncio.gather(*(task for _, _, task in opened))
        delays = {
            int(wire.blocks[-1].split(b"\n")[1].removeprefix(b"retry: ")) for _, wire, _ in opened
        }
        assert len(delays) > 10
        assert min(delays) > 0
        assert max(delays) <= 5000


async def test_closing_ends_a_replay_too() -> None:
    """§6: on SIGTERM every stream is told, whatever it is doing."""
    async with stream_harness(300) as project:
        connection, wire, task = await project.connect(cursor=50)
        connection.close("shutdown")
        assert await task == "shutdown"
        assert _names(wire.blocks)[-1] == "stream.closing"


async def test_the_first_reason_counts() -> None:
    """A stream that ends by its token is not told of the shutdown that comes along."""
    async with stream_harness() as project:
        connection, _, task = await project.connect_live()
        connection.close("token_expired")
        connection.close("shutdown")
        assert await task == "token_expired"


async def test_a_client_that_goes_away_ends_its_stream() -> None:
    """A connection that is gone is forgotten at once."""
    async with stream_harness() as project:
        connection, wire, task = await project.connect_live()
        wire.change(lost=True)
        assert await task == "client"
        assert not project.broadcast.is_live(connection)


async def test_a_client_that_takes_no_byte_is_closed() -> None:
    """§6: one that takes no byte for so long is closed (`slow_client`)."""
    async with stream_harness() as project:
        _, wire, task = await project.connect_live(slow_client_s=0.2)
        wire.blocked = True
        wire.backlog_bytes = 1000
        project.arrive()
        async with asyncio.timeout(10):
            assert await task == "slow_client"
        assert wire.finished


async def test_a_client_that_takes_some_bytes_is_not_closed() -> None:
    """§6: a slow client falls back, and is closed only when it takes no byte at all."""
    async with stream_harness() as project:
        connection, wire, task = await project.connect_live(slow_client_s=0.3)
        wire.blocked = True
        wire.backlog_bytes = 10**6
        project.arrive()
        loop = asyncio.get_running_loop()
        until = loop.time() + 1.0

        def drips() -> bool:
            wire.backlog_bytes -= 1
            return loop.time() > until

        await wait_until(drips, what="three times the limit")
        assert not task.done()
        wire.change(blocked=False)
        await wait_until(lambda: wire.seqs("message.new") == [1], what="the message")
        assert project.broadcast.is_live(connection) or not task.done()


async def test_a_blocked_client_gets_no_heartbeat() -> None:
    """§6: it never grows memory: nothing is written to one that takes nothing."""
    async with stream_harness() as project:
        connection, wire, _ = await project.connect_live()
        wire.blocked = True
        assert not connection.is_due(connection.written_at + 99)
        assert not project.broadcast.is_live(connection)


async def test_a_heartbeat_comes_after_silence_alone() -> None:
    """§6: `heartbeat` after every 15 s of silence."""
    async with stream_harness() as project:
        connection, wire, _ = await project.connect_live()
        heartbeat = Outgoing([b"event: heartbeat\ndata: {}\n\n"])
        begun = connection.written_at
        assert not connection.is_due(begun + 14.9)
        assert connection.is_due(begun + 15)
        connection.beat(begun + 15, heartbeat)
        assert not connection.is_due(begun + 29.9)
        assert len(wire.named("heartbeat")) == 1


@pytest.mark.parametrize("cursor", [None, 0, 41])
def test_a_refusal_is_a_whole_stream(cursor: int | None) -> None:
    """§6: `stream.refused` with `retry:` and the cursor that the client sent, then the end."""
    named = b"" if cursor is None else b"id: %d\n" % cursor
    assert refusal("RATE_LIMITED", 5000, cursor) == (
        b"event: stream.refused\nretry: 5000\n"
        b'data: {"code":"RATE_LIMITED","retryAfterMs":5000}\n' + named + b"\n"
    )
