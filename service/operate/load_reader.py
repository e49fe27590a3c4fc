"""One stream of a load run: what the wire brings, handed to its judge and counted.

The client reconnects and fetches; here is only watched what it does and gets.
"""

from __future__ import annotations

import time
from functools import lru_cache
from typing import NamedTuple, Self

import msgspec

from service.client import Block, Client, FollowObserver, Message
from service.operate.load_figures import LoadCounters
from service.operate.load_reader_judge import ReaderJudge

_MESSAGE_EVENTS = frozenset({"message.new", "message.replay"})


class LoadText(NamedTuple):
    """The text of a post of a run: its number, and when it was due (monotonic clock)."""

    run_id: str
    number: int
    due_ns: int

    def padded(self, size_bytes: int) -> str:
        """Return the text, with `x` up to this size."""
        return f"{self.run_id} {self.number} {self.due_ns} ".ljust(size_bytes, "x")

    @classmethod
    def parse(cls, text: str, run_id: str) -> Self | None:
        """Read a text; None when it is none of this run."""
        words = text.split(" ", 3)
        if len(words) < 4 or words[0] != run_id or not (words[1] + words[2]).isdecimal():
            return None
        return cls(run_id, int(words[1]), int(words[2]))


class SeenMessage(NamedTuple):
    """A message as it is judged: the digest is of its content, whatever the order of its JSON."""

    seq: int
    digest: int
    text: str


class _Content(msgspec.Struct, frozen=True):
    text: str = ""


class _Message(msgspec.Struct):
    seq: int
    content: _Content = _Content()


class _Position(msgspec.Struct, rename="camel"):
    head_seq: int = 0
    live_from_seq: int = 0


# All streams of a project bring the same bytes at about the same time.
@lru_cache(maxsize=64)
def seen_message(json: bytes) -> SeenMessage:
    """Return what is looked at in a message. Raises `msgspec.DecodeError` when it is none."""
    message = msgspec.json.decode(json, type=_Message)
    canonical = msgspec.json.encode(msgspec.json.decode(json), order="sorted")
    # 64 bits of a keyed hash, which does not leave this process.
    return SeenMessage(message.seq, hash(canonical) & (2**64 - 1), message.content.text)


class LoadReader(FollowObserver):
    """Watches one follower. `judge` gets every event in order."""

    def __init__(self, judge: ReaderJudge, counters: LoadCounters, run_id: str) -> None:
        self._judge = judge
        self._counters = counters
        self._run_id = run_id
        self._is_live = False
        self._attempts = 0

    async def run(self, client: Client, project: str) -> None:
        """Follow until cancelled. Raises the client's errors."""
        # Nothing is handed on: the wire is what is judged.
        async for _ in client.follow(project, events=(), observer=self):
            pass

    def connecting(self, cursor: int | None) -> None:
        self._attempts += 1
        self._counters.reconnects += self._attempts > 1
        self._judge.connecting(cursor)

    def received(self, size_bytes: int) -> None:
        self._counters.received_bytes += size_bytes

    def block(self, block: Block) -> None:
        name = block.event
        if name in _MESSAGE_EVENTS:
            self._message(block.data)
        elif name == "stream.open":
            self._judge.opened(_position(block).head_seq)
        elif name == "replay.end":
            self._judge.announced(_position(block).live_from_seq)
        elif name == "stream.reset":
            self._counters.note_interruption("stream.reset")
            self._judge.reset(_position(block).head_seq)
        elif name == "stream.live":
            self._counters.live += not self._is_live
            self._is_live = True

    def fetched(self, message: Message) -> None:
        seen = seen_message(message.json)
        self._judge.fetched(seen.seq, seen.digest)
        self._counters.deliveries += 1

    def interrupted(self, why: str, wait_s: float) -> None:
        self._counters.live -= self._is_live
        self._is_live = False
        self._counters.note_interruption(why)

    def _message(self, data: bytes) -> None:
        now_ns = time.monotonic_ns()
        try:
            seen = seen_message(data)
        except msgspec.DecodeError:
            # The client ends the stream for it.
            return
        self._judge.message(seen.seq, seen.digest)
        self._counters.deliveries += 1
        text = LoadText.parse(seen.text, self._run_id)
        if text is not None:
            self._counters.event_latency.record((now_ns - text.due_ns) // 1000)


def _position(block: Block) -> _Position:
    try:
        return msgspec.json.decode(block.data, type=_Position)
    except msgspec.DecodeError:
        return _Position()
