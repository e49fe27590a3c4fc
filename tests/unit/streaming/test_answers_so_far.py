"""When a stream writes `answer.state`: docs/protocol.md §6, on a real tail in memory."""

from __future__ import annotations

import msgspec

from streams.model.ids import EntryId
from streams.model.sse import event_frame
from streams.window.window import Entry
from tests.support.recording_wire import RecordingWire
from tests.support.stream_harness import StreamHarness, stream_harness
from tests.support.waiting import wait_until


class _Answer:
    """One answer under way: every piece is in its state at once, and then in the tail."""

    def __init__(self, project: StreamHarness) -> None:
        self.index = 0
        self.taken = 0
        self._tail = project.tail

    def write(self) -> None:
        """Write the next piece."""
        self.index += 1
        data = msgspec.json.encode({"index": self.index})
        self._tail.offer(Entry(EntryId(self._tail.last_seq, 1), "message.delta", data, 0))
        self._tail.notify()

    def frames(self) -> list[bytes]:
        """Return what a stream is shown that opens now."""
        self.taken += 1
        return [event_frame("answer.state", msgspec.json.encode({"index": self.index}))]


def _told(wire: RecordingWire) -> list[str]:
    """Return the names of what was written, without the heads of control frames."""
    return [block.split(b"\n")[0].removeprefix(b"event: ").decode() for block in wire.blocks]


def _indexes(wire: RecordingWire, event: str) -> list[object]:
    return [each["index"] for each in wire.named(event)]


async def test_answers_so_far_come_after_the_replay_and_before_live() -> None:
    """§6: replay, builds, answers, `stream.live`."""
    async with stream_harness(2, below=0) as project:
        answer = _Answer(project)
        build = ("b", 1, event_frame("build.status", b"{}"))
        _, wire, _ = await project.connect(cursor=1, builds=[build], answers=answer.frames)
        await wait_until(lambda: b"stream.live" in wire.data, what="live")
        assert _told(wire) == [
            "stream.open", "message.replay", "build.status", "answer.state", "stream.live",
        ]  # fmt: skip


async def test_no_piece_falls_between_a_state_and_live() -> None:
    """Pieces that come while a slow client takes the replay are in the state or follow it."""
    async with stream_harness(200, below=0) as project:
        answer = _Answer(project)
        wire = RecordingWire()
        connection, _, _ = await project.connect(cursor=0, answers=answer.frames, wire=wire)
        answer.write()
        wire.change(blocked=True)
        await wait_until(lambda: b"stream.open" in wire.data, what="the opening")
        answer.write()
        wire.change(blocked=False)
        await wait_until(lambda: project.broadcast.is_live(connection), what="live")
        answer.write()
        await wait_until(lambda: 3 in _indexes(wire, "message.delta"), what="the last piece")
        (state,) = _indexes(wire, "answer.state")
        assert isinstance(state, int)
        following = [each for each in _indexes(wire, "message.delta") if each > state]  # type: ignore[operator]
        assert following == list(range(state + 1, 4))


async def test_a_stream_that_fell_behind_is_shown_the_answers_again() -> None:
    """The log has messages only: pieces that left memory meanwhile are in the state."""
    async with stream_harness(5, max_entries=8) as project:
        answer = _Answer(project)
        connection, wire, _ = await project.connect(answers=answer.frames)
        await wait_until(lambda: project.broadcast.is_live(connection), what="live")
        wire.change(blocked=True)
        for _ in range(20):
            answer.write()
        project.arrive(20)
        project.project.flush()
        await wait_until(lambda: not project.broadcast.is_live(connection), what="detached")
        wire.change(blocked=False)
        await wait_until(lambda: project.broadcast.is_live(connection), what="live again")
        assert wire.seqs("message.new") == list(range(6, 26))
        assert _indexes(wire, "answer.state") == [0, 20]
        answer.write()
        await wait_until(lambda: 21 in _indexes(wire, "message.delta"), what="the next piece")
        told = _told(wire)
        assert told.index("stream.live") < len(told) - 1 - told[::-1].index("answer.state")


async def test_a_stream_that_kept_up_is_shown_the_answers_once() -> None:
    """A blocked socket alone loses nothing while the tail still has what follows."""
    async with stream_harness(5) as project:
        answer = _Answer(project)
        connection, wire, _ = await project.connect(answers=answer.frames)
        await wait_until(lambda: project.broadcast.is_live(connection), what="live")
        wire.change(blocked=True)
        answer.write()
        project.arrive(3)
        await wait_until(lambda: not project.broadcast.is_live(connection), what="detached")
        wire.change(blocked=False)
        await wait_until(lambda: project.broadcast.is_live(connection), what="live again")
        assert (_indexes(wire, "message.delta"), answer.taken) == ([1], 1)
