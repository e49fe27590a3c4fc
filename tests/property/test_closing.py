"""docs/protocol.md §2, G9: after `close` a stream writes `stream.closing` and nothing else.

Whatever the state of the client's socket and of the stream: opening, replaying, waiting for the
log, or live.
"""

from __future__ import annotations

import asyncio
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.streaming import connection as connections
from service.streaming.connection import Connection
from service.streaming.outgoing import Outgoing
from service.streaming.stream_frames import CloseReason
from tests.support.recording_wire import RecordingWire
from tests.support.stream_harness import StreamHarness, stream_harness

HEAD = 300
ACTIONS = (
    "arrive", "arrive many", "transient", "signal", "heartbeat",
    "block", "unblock", "postgres away", "postgres back", "step", "steps",
)  # fmt: skip
_STEPS = 12

actions = st.lists(st.sampled_from(ACTIONS), max_size=12)
# No cursor, at head, in the tail, below the tail, and so far behind that the replay is cut.
cursors = st.sampled_from([None, HEAD, HEAD - 10, HEAD - 150, 0])


async def _act(
    project: StreamHarness, wire: RecordingWire, connection: Connection, action: str
) -> None:
    if action == "arrive":
        project.arrive()
    elif action == "arrive many":
        project.arrive(40)
    elif action == "transient":
        project.project.append_transient()
        project.deliver()
    elif action == "signal":
        project.tail.signal(b"event: typing.start\ndata: {}\n\n")
    elif action == "heartbeat":
        now = asyncio.get_running_loop().time() + 3600
        if connection.is_due(now):
            connection.beat(now, Outgoing([b"event: heartbeat\ndata: {}\n\n"]))
    elif action in ("block", "unblock"):
        wire.change(blocked=action == "block")
    elif action.startswith("postgres"):
        project.project.postgres_answers = action == "postgres back"
    else:
        for _ in range(1 if action == "step" else _STEPS):
            await asyncio.sleep(0)


async def _live_and_close(
    cursor: int | None, before: list[str], reason: CloseReason, after: list[str]
) -> None:
    async with stream_harness(HEAD, below=HEAD - 50, max_entries=64) as project:
        connection, wire, task = await project.connect(cursor=cursor)
        for action in before:
            await _act(project, wire, connection, action)
        written = len(wire.chunks)
        connection.close(reason)
        assert not project.broadcast.is_live(connection)
        for action in after:
            await _act(project, wire, connection, action)
        async with asyncio.timeout(10):
            assert await task == reason
        project.arrive()
        written_since = b"".join(chunk.data for chunk in wire.chunks[written:])
        assert wire.finished
        assert written_since == b"" or (
            written_since.startswith(b"event: stream.closing\nretry: ")
            and b'\ndata: {"reason":' in written_since
            and written_since.count(b"\n\n") == 1
        )
        if not wire.blocked and "block" not in after:
            assert written_since, "a client that takes bytes gets the reason"


@pytest.fixture(autouse=True, scope="module")
def short_grace() -> object:
    """Abort a blocked client after a short time."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(connections, "_CLOSING_GRACE_S", 0.005)
        yield


@settings(max_examples=400)
@given(cursors, actions, st.sampled_from(get_args(CloseReason)), actions)
def test_nothing_but_the_goodbye_is_written_after_close(
    cursor: int | None, before: list[str], reason: CloseReason, after: list[str]
) -> None:
    """G9, for every reason: no byte of what was committed later, in any interleaving."""
    asyncio.run(_live_and_close(cursor, before, reason, after))
