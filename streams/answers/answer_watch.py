"""Delivers answers so far from the database: to streams that open, and when Redis did not deliver.

Which answers lack something, and what a stream is shown, is decided in `followed_answers.py`; here
are the tails, the reads of the database and their times. A stream that opens gets the state of each
unfinished answer as last read, with the pieces that came through its tail since. A poll finds
pieces that were stored and did not come, and puts the answer's state into the tail.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Sequence

from streams.answers.answer_events import ANSWER_STATE, read_begin
from streams.answers.answer_values import AnswerProgress, AnswerState
from streams.answers.followed_answers import FollowedAnswers
from streams.answers.piece_rows import MAX_PROGRESS, PieceRows
from streams.model import sse
from streams.model.errors import StreamsError
from streams.model.shards import shard_of
from streams.runtime.health import Health
from streams.runtime.owned_tasks import end
from streams.tail.registry import TailRegistry
from streams.tail.tail import Tail

_POLL_S = 1.0
_POLL_WITHOUT_REDIS_S = 0.2
_TIMEOUT_S = 2.0
_SNAPSHOT_TIMEOUT_S = 1.0
# An answer whose announcement was lost is shown to streams that open after so long.
_FRESH_S = 1.0
# How long a stream that opens waits for a read; after that it gets what was known before.
_PATIENCE_S = 0.5
# Between two reads, so that openings cannot make the database busy; and projects in one statement.
_READ_PAUSE_S = 0.05
_PROJECTS_AT_ONCE = 20
# Of the states of one answer that are put into a tail, for each client.
_STATE_BYTES_PER_S = 32 * 1024
_STATE_PAUSE_S = 0.5


class _FollowedTail:
    """One tail and its answers: when they were read, and when a state of each may be put there."""

    __slots__ = ("_generation", "_index", "answers", "may_put_at", "read_at", "tail")

    def __init__(self, tail: Tail) -> None:
        self.tail = tail
        self.answers = FollowedAnswers()
        self.read_at = float("-inf")
        self.may_put_at: dict[str, float] = {}
        self._index = tail.end_index
        self._generation = tail.generation
        tail.listen(self.look, _ignore)

    def close(self) -> None:
        self.tail.unlisten(self.look, _ignore)

    def look(self) -> None:
        """Take the new entries of the tail into account."""
        tail = self.tail
        if tail.generation != self._generation:
            self._generation = tail.generation
            self.answers.restart()
        start, self._index = max(self._index, tail.first_index), tail.end_index
        for frame in tail.frames(start):
            self.answers.saw(frame)

    def put_state(self, lacking: AnswerProgress, through: int, now: float) -> bool:
        """Put an answer's state into the tail if it has more than came through it."""
        index, frame = self.answers.frame(lacking.id)
        if index <= through:
            return False
        self.tail.put(ANSWER_STATE, sse.data_of(frame))
        self.answers.saw_state(lacking.id, index)
        pause_s = max(_STATE_PAUSE_S, len(frame) / _STATE_BYTES_PER_S)
        self.may_put_at[lacking.id] = now + pause_s
        return True


def _ignore(_: bytes) -> None:
    """Ephemeral events have no place in the tail."""


class AnswerWatch:
    """Follows the tails of this process, and polls the unfinished answers of their projects."""

    def __init__(self, tails: TailRegistry, pieces: PieceRows, health: Health) -> None:
        self._pieces = pieces
        self._health = health
        self._followed: dict[str, _FollowedTail] = {}
        # The next read, which has not begun, and the projects that it is for.
        self._next: asyncio.Task[None] | None = None
        self._wanted: set[str] = set()
        self._reads: set[asyncio.Task[None]] = set()
        self._one_at_a_time = asyncio.Lock()
        self._read_at = self._failed_at = float("-inf")
        tails.watch(self._made, self._dropped)
        tails.on_notice(self._noticed)

    def _made(self, tail: Tail) -> None:
        self._followed[tail.project_id] = _FollowedTail(tail)

    def _dropped(self, tail: Tail) -> None:
        self._followed.pop(tail.project_id).close()

    def _noticed(self, project_id: str, event: str, data: bytes) -> None:
        """Pass on to open streams that an answer begins, and nothing else under this name."""
        followed = self._followed.get(project_id) if event == ANSWER_STATE else None
        begin = None if followed is None else read_begin(data)
        if followed is not None and begin is not None:
            answer_id, data = begin
            followed.answers.saw_begin(answer_id)
            followed.tail.signal(sse.event_frame(ANSWER_STATE, data))

    # For streams that open.

    async def ready(self, tail: Tail) -> None:
        """Return when `frames` has what the database has: at once if it is known to.

        A read is shared by all that wait for one. While the database does not answer, what was
        known before has to do.
        """
        followed = self._followed.get(tail.project_id)
        if followed is None:
            return
        now = asyncio.get_running_loop().time()
        is_known = now - followed.read_at < _FRESH_S and not followed.answers.is_stale
        if is_known or now - self._failed_at < _FRESH_S or not self._health.postgres_up:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE_S):
                await self._read([tail.project_id])

    def frames(self, tail: Tail) -> list[bytes]:
        """Return the frame of `answer.state` of each unfinished answer of the tail's project.

        They have every piece that came through the tail up to now, without a hole: with the entries
        that follow in the tail, nothing is missing. Each is encoded once for all callers.
        """
        followed = self._followed.get(tail.project_id)
        if followed is None:
            return []
        followed.look()
        return followed.answers.frames()

    async def _read(self, project_ids: Iterable[str]) -> None:
        """Read the unfinished answers of projects: a read that begins from now on."""
        self._wanted.update(project_ids)
        if self._next is None:
            # In a task: a stream that is closed must not cancel the read for the others.
            self._next = asyncio.create_task(self._read_wanted(), name="read answers so far")
            self._reads.add(self._next)
            self._next.add_done_callback(self._reads.discard)
        await asyncio.shield(self._next)

    async def _read_wanted(self) -> None:
        """Read what is wanted once the read in progress has ended: there are two tasks at most."""
        loop = asyncio.get_running_loop()
        async with self._one_at_a_time:
            # Requests of the same moment are read together.
            await asyncio.sleep(max(0.0, self._read_at + _READ_PAUSE_S - loop.time()))
            self._read_at = loop.time()
            self._next = None
            wanted, self._wanted = list(self._wanted), set()
            for start in range(0, len(wanted), _PROJECTS_AT_ONCE):
                some = [
                    self._followed.get(each) for each in wanted[start : start + _PROJECTS_AT_ONCE]
                ]
                await self._read_some([each for each in some if each is not None])

    async def _read_some(self, some: Sequence[_FollowedTail]) -> None:
        found: dict[str, list[AnswerState]] | None = None
        for followed in some:
            followed.answers.begin_read()
        try:
            async with asyncio.timeout(_SNAPSHOT_TIMEOUT_S):
                states = await self._pieces.so_far([each.tail.project_id for each in some])
            found = {}
            for state in states:
                found.setdefault(state.answer.project_id, []).append(state)
        except (StreamsError, TimeoutError):
            self._failed_at = asyncio.get_running_loop().time()
        finally:
            now = asyncio.get_running_loop().time()
            for followed in some:
                followed.read_at = now
                followed.look()
                read = None if found is None else found.get(followed.tail.project_id, [])
                followed.answers.end_read(read)

    # Polling.

    async def run(self) -> None:
        """Poll until cancelled."""
        while True:
            await asyncio.sleep(_POLL_S if self._health.delivers else _POLL_WITHOUT_REDIS_S)
            await self.once()

    async def once(self) -> None:
        """Poll once: put into the tails the states of answers of which pieces did not come."""
        polled = list(self._followed.values())
        if not polled:
            return
        before = [followed.answers.begin_poll() for followed in polled]
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                rows = await self._pieces.progress([each.tail.project_id for each in polled])
        except (StreamsError, TimeoutError):
            return
        found: dict[str, list[AnswerProgress]] = {}
        for row in rows:
            found.setdefault(row.project_id, []).append(row)
        lacking: list[tuple[_FollowedTail, AnswerProgress, int]] = []
        for followed, known in zip(polled, before, strict=True):
            progress = found.get(followed.tail.project_id, [])
            if len(rows) < MAX_PROGRESS:
                followed.answers.end_poll(progress, known)
            lacking += self._lacking(followed, progress)
        if lacking:
            await self._put_states(lacking)

    def _lacking(
        self, followed: _FollowedTail, progress: Sequence[AnswerProgress]
    ) -> list[tuple[_FollowedTail, AnswerProgress, int]]:
        """Return the answers that lack something and may be shown again, and how far they came."""
        now = asyncio.get_running_loop().time()
        may_put_at = followed.may_put_at
        for answer_id in may_put_at.keys() - {each.id for each in progress}:
            del may_put_at[answer_id]
        delivers = self._health.delivers_to(shard_of(followed.tail.project_id))
        return [
            (followed, each, followed.answers.through(each.id))
            for each in followed.answers.lacking(progress, delivers=delivers)
            if may_put_at.get(each.id, now) <= now
        ]

    async def _put_states(
        self, lacking: Sequence[tuple[_FollowedTail, AnswerProgress, int]]
    ) -> None:
        unread = {
            followed.tail.project_id
            for followed, each, _ in lacking
            if followed.answers.index(each.id) < each.index
        }
        if unread:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TIMEOUT_S):
                    await self._read(unread)
        now = asyncio.get_running_loop().time()
        changed: dict[str, Callable[[], None]] = {}
        for followed, each, through in lacking:
            if followed.put_state(each, through, now):
                changed[followed.tail.project_id] = followed.tail.notify
        for notify in changed.values():
            notify()

    async def close(self) -> None:
        """End the reads in progress."""
        await end(list(self._reads))
