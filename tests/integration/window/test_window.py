"""docs/protocol.md §2 on real Redis: the scripts that write a project's stream."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

import msgspec
import pytest

from streams.model.events import encode
from streams.model.ids import EntryId
from streams.window import keys
from streams.window.redis_client import RedisClient
from streams.window.window import (
    IDLE_EXPIRY_MS,
    MAX_ENTRIES,
    WINDOW_BYTES,
    AppendResult,
    Run,
    Window,
    covers,
)
from tests.support.entries import entry, message

NOTHING = EntryId(0, 0)


_numbers = count(1)


@pytest.fixture
def stream() -> str:
    """A project id of the test's own: its stream is empty."""
    return f"w-{next(_numbers)}"


def _run(project: str, first: int, last: int | None = None, *, text: str | None = None) -> Run:
    seqs = range(first, (last or first) + 1)
    return Run(
        project, first, [encode(message(seq, project_id=project, text=text)) for seq in seqs]
    )


async def _ids(window: Window, project: str) -> list[EntryId]:
    return [each.id for each in await window.read_after(project, NOTHING, count=5000)]


async def _seqs(window: Window, project: str) -> list[int]:
    return [each.seq for each in await _ids(window, project) if each.k == 0]


async def _transient(
    window: Window, project: str, *, head: int = 0, known: EntryId = NOTHING
) -> EntryId:
    given = await window.append_transient(
        project, "build.status", b'{"status":"queued"}', head=head, newest_known=known
    )
    assert given is not None
    return given


async def test_message_n_stands_at_n_0(window: Window, stream: str) -> None:
    """§2: Redis Stream id of message n: `n-0`; its data is the event's data."""
    assert await window.append(_run(stream, 1, 2)) == AppendResult("ok", 2)
    found = await window.read_after(stream, NOTHING, count=10)
    assert [(each.id, each.event, each.data) for each in found] == [
        (EntryId(seq, 0), "message.new", encode(message(seq, project_id=stream))) for seq in (1, 2)
    ]


async def test_reading_from_n_0_gives_what_follows_message_n(window: Window, stream: str) -> None:
    """§2: so `XREAD` from `n-0` gives everything after message n."""
    await window.append(_run(stream, 1, 2))
    await _transient(window, stream)
    await window.append(_run(stream, 3))
    found = await window.read_after(stream, EntryId(2, 0), count=10)
    assert [each.id for each in found] == [(2, 1), (3, 0)]


async def test_a_repeat_changes_nothing(window: Window, stream: str) -> None:
    """I2: a repeat is a no-op."""
    await window.append(_run(stream, 1, 3))
    before = await window.read_after(stream, NOTHING, count=10)
    for run in (_run(stream, 1, 3), _run(stream, 2), _run(stream, 3)):
        assert await window.append(run) == AppendResult("ok", 3)
    assert await window.read_after(stream, NOTHING, count=10) == before


async def test_a_run_that_overlaps_adds_what_is_new(window: Window, stream: str) -> None:
    """I2: only `hi + 1` is ever appended."""
    await window.append(_run(stream, 1, 3))
    assert await window.append(_run(stream, 2, 5)) == AppendResult("ok", 5)
    assert await _seqs(window, stream) == [1, 2, 3, 4, 5]


async def test_after_a_hole_nothing_is_written(window: Window, stream: str) -> None:
    """I2: on a hole it answers with `hi` and writes nothing."""
    await window.append(_run(stream, 1, 3))
    assert await window.append(_run(stream, 5, 6)) == AppendResult("hole", 3)
    assert await _seqs(window, stream) == [1, 2, 3]


async def test_an_empty_stream_begins_with_message_1_alone(window: Window, stream: str) -> None:
    """I2: on an empty stream a later message is a hole: it may have been lost."""
    assert await window.append(_run(stream, 2)) == AppendResult("hole", 0)
    assert await _ids(window, stream) == []


async def test_a_restart_begins_anew_after_a_hole(window: Window, stream: str) -> None:
    """I2: when the hole is wider than the window, the stream restarts from the newest."""
    await window.append(_run(stream, 1, 3))
    assert await window.append(_run(stream, 10, 12), "restart") == AppendResult("ok", 12)
    assert await _seqs(window, stream) == [10, 11, 12]


async def test_a_restart_without_a_hole_only_appends(window: Window, stream: str) -> None:
    """Two healers at once must not throw away what the other wrote."""
    await window.append(_run(stream, 1, 3))
    await _transient(window, stream)
    await window.append(_run(stream, 2, 5), "restart")
    assert await _ids(window, stream) == [(1, 0), (2, 0), (3, 0), (3, 1), (4, 0), (5, 0)]


async def test_a_replacement_begins_anew_in_any_case(window: Window, stream: str) -> None:
    """A stream that is ahead of a restored log is replaced by what the log has."""
    await window.append(_run(stream, 1, 9))
    assert await window.append(_run(stream, 1, 3), "replace") == AppendResult("ok", 3)
    assert await _seqs(window, stream) == [1, 2, 3]


async def test_another_message_under_the_same_seq_means_diverged(
    window: Window, stream: str
) -> None:
    """The log was restored: the stream has a message that the log does not."""
    await window.append(_run(stream, 1, 3))
    other = encode(msgspec.structs.replace(message(3, project_id=stream), message_id="other"))
    assert await window.append(Run(stream, 3, [other])) == AppendResult("diverged", 3)
    assert await _seqs(window, stream) == [1, 2, 3]


async def test_divergence_is_found_at_a_later_message(window: Window, stream: str) -> None:
    """A run that begins within the stream and goes beyond it is compared too."""
    await window.append(_run(stream, 1, 3))
    other = encode(msgspec.structs.replace(message(3, project_id=stream), message_id="other"))
    run = Run(stream, 3, [other, encode(message(4, project_id=stream))])
    assert (await window.append(run)).status == "diverged"


async def test_the_same_message_written_otherwise_has_not_diverged(
    window: Window, stream: str
) -> None:
    """A newer version of the service may write the same message's JSON another way."""
    await window.append(_run(stream, 1, 3))
    spaced = encode(message(3, project_id=stream)).replace(b'":', b'": ')
    assert await window.append(Run(stream, 3, [spaced])) == AppendResult("ok", 3)


async def test_the_window_is_the_last_200_messages(window: Window, stream: str) -> None:
    """§1: the last 200 messages, by seq and exactly."""
    await window.append(_run(stream, 1, 150))
    await window.append(_run(stream, 151, 250))
    assert await _seqs(window, stream) == list(range(51, 251))


async def test_a_run_larger_than_the_window_leaves_its_newest(window: Window, stream: str) -> None:
    """§1: the last 200 messages."""
    await window.append(_run(stream, 1, 500))
    assert await _seqs(window, stream) == list(range(301, 501))


async def test_transient_entries_go_with_the_messages_before_them(
    window: Window, stream: str
) -> None:
    """§1: the window has the transient entries among its messages, and no others."""
    await window.append(_run(stream, 1))
    await _transient(window, stream)
    await window.append(_run(stream, 2, 200))
    assert (await _ids(window, stream))[:2] == [(1, 0), (1, 1)]
    await window.append(_run(stream, 201))
    assert (await _ids(window, stream))[0] == (2, 0)


async def test_transient_entries_stand_after_the_last_message(window: Window, stream: str) -> None:
    """§2: of the k-th transient entry after message n: `n-k`, k ≥ 1."""
    await window.append(_run(stream, 1, 7))
    given = [await _transient(window, stream) for _ in range(12)]
    assert given == [EntryId(7, k) for k in range(1, 13)]
    await window.append(_run(stream, 8))
    assert await _transient(window, stream) == EntryId(8, 1)


async def test_a_transient_entry_carries_its_id(window: Window, stream: str) -> None:
    """G6: each carries `entryId` (`"n-k"`) to drop repeats by."""
    await window.append(_run(stream, 1))
    await _transient(window, stream)
    (found,) = await window.read_after(stream, EntryId(1, 0), count=10)
    assert (found.event, found.data) == (
        "build.status", b'{"entryId":"1-1","status":"queued"}',
    )  # fmt: skip


async def test_a_transient_entry_without_fields_is_still_json(window: Window, stream: str) -> None:
    """G6: entryId is put in front of whatever there is."""
    await window.append_transient(stream, "x", b"{}", head=0, newest_known=NOTHING)
    (found,) = await window.read_after(stream, NOTHING, count=10)
    assert found.data == b'{"entryId":"0-1"}'


async def test_on_an_empty_stream_a_transient_entry_comes_after_the_head(
    window: Window, stream: str
) -> None:
    """The n is the stream's own last number; only on an empty stream it is the log's head."""
    assert await _transient(window, stream, head=41) == EntryId(41, 1)


async def test_a_transient_entry_never_comes_after_a_message_that_is_missing(
    window: Window, stream: str
) -> None:
    """With an n that the stream has not reached, messages could no longer be appended."""
    await window.append(_run(stream, 1, 3))
    assert await _transient(window, stream, head=9) == EntryId(3, 1)
    assert await window.append(_run(stream, 4, 9)) == AppendResult("ok", 9)


async def test_messages_follow_a_stream_that_began_with_a_transient_entry(
    window: Window, stream: str
) -> None:
    """The next message is head + 1, and it can be appended."""
    await _transient(window, stream, head=41)
    assert await window.append(_run(stream, 42)) == AppendResult("ok", 42)
    assert await _ids(window, stream) == [(41, 1), (42, 0)]


async def test_an_entry_id_is_not_assigned_twice_after_the_stream_was_lost(
    window: Window, stream: str
) -> None:
    """G6: a client drops an entry whose `entryId` it has seen, so ids must be unique."""
    given = await _transient(window, stream, head=5)
    await window.discard(stream)
    assert await _transient(window, stream, head=5, known=given) == EntryId(5, 2)


async def test_the_number_of_entries_is_bounded_and_messages_stay(
    window: Window, redis_client: RedisClient, stream: str
) -> None:
    """Every buffer is bounded; the oldest transient entries are deleted, never a message."""
    await window.append(_run(stream, 1, 5))
    for _ in range(MAX_ENTRIES + 60):
        newest = await _transient(window, stream)
    ids = await _ids(window, stream)
    assert len(ids) <= MAX_ENTRIES
    assert [each.seq for each in ids if each.k == 0] == [1, 2, 3, 4, 5]
    assert ids[-1] == newest


async def test_a_stream_that_nobody_writes_to_expires(
    window: Window, redis_client: RedisClient, stream: str
) -> None:
    """Every append renews the idle expiry."""
    await window.append(_run(stream, 1))
    ttl_ms = await redis_client.call("PTTL", keys.stream(stream))
    assert 0 < ttl_ms <= IDLE_EXPIRY_MS


async def test_a_stream_of_transient_entries_alone_expires(
    window: Window, redis_client: RedisClient, stream: str
) -> None:
    """Every append renews the idle expiry."""
    await _transient(window, stream)
    assert await redis_client.call("PTTL", keys.stream(stream)) > 0


async def test_large_seqs_are_written_as_whole_numbers(window: Window, stream: str) -> None:
    """Lua would write 10^15 as 1e+15."""
    first = 2**53 - 3
    await window.append(_run(stream, first, first + 1), "restart")
    assert await _ids(window, stream) == [(first, 0), (first + 1, 0)]
    assert await _transient(window, stream) == EntryId(first + 1, 1)


async def test_the_last_id_is_that_of_the_newest_entry(window: Window, stream: str) -> None:
    """A tail begins where the stream ends."""
    assert await window.last_id(stream) is None
    await window.append(_run(stream, 1, 2))
    assert await window.last_id(stream) == EntryId(2, 0)
    await _transient(window, stream)
    assert await window.last_id(stream) == EntryId(2, 1)


async def test_many_runs_each_have_their_own_result(window: Window, stream: str) -> None:
    """A batch of projects is one round trip; one hole does not fail the others."""
    others = [f"{stream}-{number}" for number in range(3)]
    runs = [_run(others[0], 1, 2), _run(others[1], 5), _run(others[2], 1)]
    assert await window.append_all(runs) == [
        AppendResult("ok", 2), AppendResult("hole", 0), AppendResult("ok", 1),
    ]  # fmt: skip


async def test_a_server_that_forgot_the_scripts_gets_them_again(
    window: Window, redis_client: RedisClient, stream: str
) -> None:
    """A restarted or failed-over Redis has no scripts."""
    await window.append(_run(stream, 1))
    await redis_client.call("SCRIPT", "FLUSH")
    assert await window.append(_run(stream, 2)) == AppendResult("ok", 2)
    await redis_client.call("SCRIPT", "FLUSH")
    runs = [_run(stream, 3), _run(f"{stream}-x", 1)]
    assert [str(each) for each in await window.append_all(runs)] == [
        str(AppendResult("ok", 3)), str(AppendResult("ok", 1)),
    ]  # fmt: skip


async def test_any_bytes_come_back_as_they_were(window: Window, stream: str) -> None:
    """The data of an event is the same bytes in Redis as on the stream."""
    data = encode(message(1, project_id=stream, text="\n\r\u2028\x01🧵" + "x" * 65_000))
    await window.append(Run(stream, 1, [data]))
    (found,) = await window.read_after(stream, NOTHING, count=1)
    assert found.data == data


@pytest.mark.parametrize(
    ("ids", "after", "head", "covered"),
    [
        ([], 5, 5, True),
        ([], 5, 6, False),
        ([(6, 0), (7, 0)], 5, 7, True),
        ([(6, 0), (7, 0)], 5, 8, False),
        ([(7, 0)], 5, 7, False),
        ([(6, 0), (8, 0)], 5, 8, False),
        ([(5, 1), (6, 0), (6, 1)], 5, 6, True),
        ([(6, 1), (7, 0)], 5, 7, False),
        ([(6, 0), (7, 0), (8, 0)], 5, 7, True),
    ],
)
def test_what_covers_a_range(
    ids: Sequence[tuple[int, int]], after: int, head: int, covered: bool
) -> None:
    """Entries of the window are used only if their seqs follow each other without a hole."""
    assert covers([entry(EntryId(*each)) for each in ids], EntryId(after, 0), head) is covered


async def _bytes(window: Window, project: str) -> int:
    return sum(len(each.data) for each in await window.read_after(project, NOTHING, count=5000))


async def test_large_messages_leave_fewer_in_the_window(window: Window, stream: str) -> None:
    """§2, limits: about 4 MiB a project; what stays is contiguous and ends at the newest."""
    text = "x" * 60_000
    for first in range(1, 400, 20):
        assert (await window.append(_run(stream, first, first + 19, text=text))).status == "ok"
        assert await _bytes(window, stream) <= WINDOW_BYTES
    seqs = await _seqs(window, stream)
    assert seqs == list(range(401 - len(seqs), 401))
    # Not cut to the bone: what is taken away is not taken away at every append.
    assert await _bytes(window, stream) >= WINDOW_BYTES / 2
    await window.append(_run(stream, 401, text="small"))
    assert (await _seqs(window, stream))[-2:] == [400, 401]


async def test_small_messages_do_not_pay_for_the_bound(window: Window, stream: str) -> None:
    """§2: the window is the newest 200 where they fit."""
    await window.append(_run(stream, 1, 200, text="x" * 10_000))
    await window.append(_run(stream, 201, 400, text="x" * 10_000))
    assert await _seqs(window, stream) == list(range(201, 401))


async def test_one_run_above_the_bound_keeps_its_newest(window: Window, stream: str) -> None:
    """§2: also when a window is restored from the log at once."""
    await window.append(_run(stream, 1, 200, text="x" * 64_000), "restart")
    seqs = await _seqs(window, stream)
    assert seqs == list(range(201 - len(seqs), 201))
    assert seqs
    assert await _bytes(window, stream) <= WINDOW_BYTES


async def test_large_transient_entries_cost_the_oldest_messages_first(
    window: Window, stream: str
) -> None:
    """§2: then the oldest transient entries after the newest message, which stays."""
    await window.append(_run(stream, 1, 100, text="x" * 20_000))
    data = msgspec.json.encode({"delta": "y" * 60_000})
    last = NOTHING
    for _ in range(150):
        given = await window.append_transient(
            stream, "message.delta", data, head=None, newest_known=NOTHING
        )
        assert given is not None
        assert given > last
        last = given
        assert await _bytes(window, stream) <= WINDOW_BYTES
    ids = await _ids(window, stream)
    assert ids[0] == EntryId(100, 0)
    assert ids[-1] == last == EntryId(100, 150)
    assert [each.k for each in ids[1:]] == list(range(152 - len(ids), 151))
