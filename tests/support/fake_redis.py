"""The part of a Redis server that lanes use, in memory: XADD, XREAD BLOCK, XREVRANGE, DEL.

A command and its reply each take a random time on their way; a connection keeps its order. Each
command is executed in one step, as in Redis. `publish` and `append_transient` imitate the script
that publishes; the scripts themselves are tested on a real server.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from random import Random
from typing import Any

from hiredis import Reader

from streams.model.errors import WindowUnavailable
from streams.model.ids import EntryId
from streams.window import keys
from streams.window.lua import Script

Fields = list[bytes]
_FAR_S = 0.02


class FakeRedis:
    """Used in place of `RedisClient`; while `refusing` is set, every write fails."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._streams: dict[bytes, list[tuple[EntryId, Fields]]] = {}
        self._changed = asyncio.Event()
        self._clock = 0
        self.refusing = False
        self.connections: list[FakeConnection] = []

    # Called by the service.

    async def call(self, *command: bytes | str | int) -> Any:
        """As `RedisClient.call`."""
        await self.on_the_way()
        try:
            return self._do([_bytes(word) for word in command])
        finally:
            await self.on_the_way()

    async def run(self, script: Script, key: str, *arguments: bytes | str | int) -> Any:
        """As `RedisClient.run`, for the one script that lanes use."""
        assert script.name == "add_expiring"
        kept, _, *fields = arguments[1:]
        return await self.call("XADD", key, "MAXLEN", kept, "*", *fields)

    def dedicated(self, key: str, *, block_s: float) -> FakeConnection:
        """As `RedisClient.dedicated`."""
        connection = FakeConnection(self)
        self.connections.append(connection)
        return connection

    # Called by tests; each is one step of the server and takes no time.

    def publish(self, project: str, seq: int) -> None:
        """Append a message as the script does: in order, and a repeat has no effect."""
        entries = self._streams.get(keys.stream(project).encode(), [])
        if not entries or entries[-1][0] < EntryId(seq, 0):
            data = b'{"seq":%d}' % seq
            self._add(keys.stream(project).encode(), EntryId(seq, 0), _fields("message.new", data))

    def append_transient(self, project: str) -> EntryId | None:
        """Append a transient entry after the stream's last entry; return None for no stream."""
        key = keys.stream(project).encode()
        if not self._streams.get(key):
            return None
        seq, k = self._streams[key][-1][0]
        entry_id = EntryId(seq, k + 1)
        data = b'{"entryId":"%d-%d"}' % entry_id
        self._add(key, entry_id, _fields("message.delta", data))
        return entry_id

    def lose(self, project: str) -> None:
        """Delete a project's stream."""
        self._streams.pop(keys.stream(project).encode(), None)

    def last_id(self, project: str) -> EntryId | None:
        """Return the newest id of a project's stream."""
        entries = self._streams.get(keys.stream(project).encode())
        return entries[-1][0] if entries else None

    async def on_the_way(self) -> None:
        """Wait a random time, as a packet would take."""
        await asyncio.sleep(self._random.random() * _FAR_S)

    async def read(self, command: Sequence[bytes]) -> Any:
        """XREAD COUNT n BLOCK ms STREAMS key … id …"""
        count, block_s = int(command[2]), int(command[4]) / 1000
        named = command[6:]
        half = len(named) // 2
        wanted = [
            (key, EntryId.parse(after))
            for key, after in zip(named[:half], named[half:], strict=True)
        ]
        deadline = asyncio.get_running_loop().time() + block_s
        while True:
            found = []
            for key, after in wanted:
                entries = [each for each in self._streams.get(key, ()) if each[0] > after][:count]
                if entries:
                    found.append([key, [[str(each).encode(), fields] for each, fields in entries]])
            if found:
                return found
            changed = self._changed
            try:
                async with asyncio.timeout_at(deadline):
                    await changed.wait()
            except TimeoutError:
                return None

    def _do(self, command: Sequence[bytes]) -> Any:
        match command:
            case [b"XADD", key, b"MAXLEN", _, b"*", *fields]:
                if self.refusing:
                    raise WindowUnavailable("OOM")
                self._clock += 1
                self._streams.pop(key, None)
                self._add(key, EntryId(self._clock, 0), list(fields))
                return None
            case [b"XREVRANGE", key, *_]:
                entries = self._streams.get(key, ())
                return [[str(each).encode(), fields] for each, fields in entries[-1:]]
            case [b"DEL", *_]:
                return 1
        raise AssertionError(f"the fake does not know {command}")

    def _add(self, key: bytes, entry_id: EntryId, fields: Fields) -> None:
        self._streams.setdefault(key, []).append((entry_id, fields))
        self._changed.set()
        self._changed = asyncio.Event()


class FakeConnection:
    """Stands in for `BlockingConnection`."""

    def __init__(self, server: FakeRedis) -> None:
        self._server = server
        self._broken = False

    async def call(self, *command: bytes | str | int) -> Any:
        """As `BlockingConnection.call`."""
        return await self._server.call(*command)

    async def send(self, packed: bytes) -> Any:
        """As `BlockingConnection.send`."""
        reader = Reader()
        reader.feed(packed)
        command = reader.gets()
        await self._server.on_the_way()
        reply = await self._server.read(command)
        await self._server.on_the_way()
        if self._broken:
            self._broken = False
            raise WindowUnavailable("connection lost")
        return reply

    def break_(self) -> None:
        """Lose the connection: the reply to the read under way never arrives."""
        self._broken = True

    async def close(self) -> None:
        """As `BlockingConnection.close`."""


def _fields(event: str, data: bytes) -> Fields:
    return [b"event", event.encode(), b"data", data, b"at", b"1"]


def _bytes(word: bytes | str | int) -> bytes:
    return word if isinstance(word, bytes) else str(word).encode()
