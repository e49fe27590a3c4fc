"""The browser and Node client in a Node process: what it hears, as records for `checker.py`.

The program is tests/web_client/follow.mjs; it is spoken to in lines of JSON. What is shown is
judged apart from what is heard: what was fetched from the history is in the client's list alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from tests.support.history import Acknowledgement, ClientHistory, Connection, Event, LogRow, Post
from tests.support.waiting import wait_until

_PROGRAM = Path(__file__).resolve().parents[1] / "web_client" / "follow.mjs"
_LINE_BYTES = 64 * 1024 * 1024  # a whole state is one line
_END_TIMEOUT_S = 10.0


class ShownItem(msgspec.Struct, rename="camel"):
    """A line of the chat, as the client shows it."""

    seq: int | None
    status: str
    text: str
    key: str
    message_id: str | None = None
    user_id: str | None = None


class _State(msgspec.Struct, rename="camel"):
    messages: list[ShownItem]
    gaps: list[Mapping[str, int]]
    head_seq: int


class NodeClient:
    """One client of one project; `async with` runs its process.

    `options` are those of `open`; `mint` and `timers` are described in follow.mjs.
    """

    def __init__(
        self,
        name: str,
        url: str,
        project_id: str,
        options: Mapping[str, object],
        **more: object,
    ) -> None:
        self.name = name
        self.project_id = project_id
        self.lines: list[dict[str, Any]] = []
        self.posts: list[Post] = []
        self._arguments = {"url": url, "project": project_id, "options": options, **more}
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        argument = msgspec.json.encode(self._arguments).decode()
        self._process = await asyncio.create_subprocess_exec(
            "node", str(_PROGRAM), argument, limit=_LINE_BYTES,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        self._reading = asyncio.create_task(self._read(), name=f"node-{self.name}")
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._process is not None
        assert self._reading is not None
        try:
            async with asyncio.timeout(_END_TIMEOUT_S):
                self._say({"close": True})
                await self._process.wait()
        except (TimeoutError, OSError):
            self._process.kill()
            await self._process.wait()
        await self._reading

    @property
    def status(self) -> str:
        """The state of the connection."""
        return next((line["status"] for line in reversed(self.lines) if "status" in line), "")

    def count(self, kind: str, value: object = None) -> int:
        """How many lines have this field, with this value if one is given."""
        return sum(kind in line and value in (None, line[kind]) for line in self.lines)

    async def wait_status(self, status: str, *, timeout_s: float = 20.0) -> None:
        """Wait until the connection is in this state."""
        await wait_until(
            lambda: self.status == status, timeout_s=timeout_s, what=f"{status} ({self.name})"
        )

    def send(self, text: str, user_id: str) -> None:
        """Have the client send a message; its receipt comes as a line."""
        post = Post(self.project_id, user_id, f"{self.name}-{len(self.posts)}", text)
        self.posts.append(post)
        self._say({"send": text, "id": post.client_msg_id})

    async def load_older(self, limit: int) -> bool:
        """Have the client load older messages; return whether there are more."""
        before = self.count("more")
        self._say({"older": limit})
        await wait_until(lambda: self.count("more") > before, what="older messages")
        return bool(next(line["more"] for line in reversed(self.lines) if "more" in line))

    async def shown(self) -> _State:
        """Ask for the client's state."""
        before = self.count("state")
        self._say({"state": True})
        await wait_until(lambda: self.count("state") > before, what="the client's state")
        last = next(line for line in reversed(self.lines) if "state" in line)
        return msgspec.convert(last["state"], _State)

    async def wait_shown(self, log: Sequence[LogRow], *, timeout_s: float = 30.0) -> None:
        """Wait until the client shows exactly the log; report the first difference otherwise."""
        expected = [(row.seq, row.message_id, row.user_id, row.text) for row in log]
        got: list[tuple[int | None, str | None, str | None, str]] = []

        async def is_equal() -> bool:
            got[:] = [
                (item.seq, item.message_id, item.user_id, item.text)
                for item in (await self.shown()).messages
            ]
            return got == expected

        try:
            await wait_until(is_equal, timeout_s=timeout_s, what="the whole log")
        except TimeoutError:
            assert got == expected, self.lines[-5:]

    def acknowledgements(self) -> list[Acknowledgement]:
        """The receipts of what was sent."""
        posts = {post.client_msg_id: post for post in self.posts}
        receipts = [line["receipt"] for line in self.lines if "receipt" in line]
        return [
            Acknowledgement(
                posts[receipt["clientMsgId"]],
                receipt["seq"],
                receipt["messageId"],
                receipt["duplicate"],
                0.0,
            )
            for receipt in receipts
        ]

    def history(self) -> ClientHistory:
        """What the client heard. A page that long polling fetched counts as a connection."""
        connections: list[tuple[str | None, list[Event]]] = []
        for line in self.lines:
            if "open" in line:
                connections.append((line["open"], []))
            elif line.get("event") == "history.page":
                connections.append(_polled(line["data"]))
            elif "event" in line:
                data = msgspec.json.encode(line["data"])
                connections[-1][1].append(Event(line["event"], line["id"], data))
        records = tuple(
            Connection(cursor, tuple(events)) for cursor, events in connections if events
        )
        return ClientHistory(self.name, self.project_id, records)

    def _say(self, command: Mapping[str, object]) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode(command) + b"\n")

    async def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            self.lines.append(msgspec.json.decode(line))


def _polled(page: dict[str, Any]) -> tuple[str, list[Event]]:
    after = str(page["after"])
    opened = {"headSeq": page["headSeq"], "cursor": page["after"]}
    events = [Event("stream.open", after, msgspec.json.encode(opened))]
    events += [
        Event("message.replay", str(message["seq"]), msgspec.json.encode(message))
        for message in page["messages"]
    ]
    return after, events
