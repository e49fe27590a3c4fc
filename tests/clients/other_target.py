"""Any service that a TOML file describes, as a target: over HTTP, with a stream and a way to post.

It runs already, and is reached without TLS. What the file does not name (commands that stop and
start it, a heartbeat) is a control that the target lacks. `docs/clients.md` shows a file.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import tomllib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import msgspec

from tests.clients.reading import Reading
from tests.clients.records import Sent
from tests.clients.target import Control
from tests.support.waiting import wait_until

_COMMAND_TIMEOUT_S = 60.0
_LOOPBACK = ("127.0.0.1", "localhost")


class Post(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a message is posted: a request whose body has `{text}`, or a command that reads it.

    In a body, `{text}` stands for the text as a JSON string. A command gets it on standard input.
    """

    url: str | None = None
    body: str = '{"message": {text}}'
    headers: dict[str, str] = {}
    command: list[str] | None = None


class Description(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file. `{channel}` stands for a name that is new for each run of a program."""

    name: str
    stream_url: str
    post: Post
    reading: Reading
    token: str = ""
    longest_text_bytes: int = 65_536
    ready_event: str | None = None
    heartbeat_event: str | None = None
    heartbeat_query: str | None = None  # `heartbeat={seconds}`, added to the stream's query
    stop_command: list[str] | None = None
    start_command: list[str] | None = None


class OtherChannel:
    """A channel of the service; see `Channel`."""

    def __init__(self, description: Description, http: httpx.AsyncClient) -> None:
        self._description = description
        self._http = http
        self._name = f"clients-{secrets.token_hex(6)}"
        self._url = urlsplit(self._fill(description.stream_url))
        self.host = self._url.hostname or "127.0.0.1"
        self.port = self._url.port or 80
        self.token = description.token

    def path(self, heartbeat_s: int | None) -> str:
        """See `Channel`."""
        query = [self._url.query] if self._url.query else []
        if heartbeat_s is not None and self._description.heartbeat_query is not None:
            query.append(self._description.heartbeat_query.replace("{seconds}", str(heartbeat_s)))
        return self._url.path + ("?" + "&".join(query) if query else "")

    async def post(self, texts: Sequence[str]) -> list[Sent]:
        """See `Channel`. The numbers are not known: messages are told by their texts."""
        post = self._description.post
        for text in texts:
            if post.command is not None:
                await _run([self._fill(word) for word in post.command], text.encode())
                continue
            assert post.url is not None
            body = post.body.replace("{text}", msgspec.json.encode(text).decode())
            answer = await self._http.post(
                self._fill(post.url), content=body.encode(),
                headers={"Content-Type": "application/json", **post.headers},
            )  # fmt: skip
            answer.raise_for_status()
        return [Sent(text) for text in texts]

    async def stop(self) -> None:
        """See `Channel`."""
        assert self._description.stop_command is not None
        await _run(self._description.stop_command)

    async def start(self) -> None:
        """See `Channel`."""
        assert self._description.start_command is not None
        await _run(self._description.start_command)

        async def listens() -> bool:
            try:
                _, writer = await asyncio.open_connection(self.host, self.port)
            except OSError:
                return False
            writer.close()
            return True

        await wait_until(listens, timeout_s=_COMMAND_TIMEOUT_S, what="the service's start")

    async def occupy(self) -> None:
        """See `Channel`; not offered."""
        raise NotImplementedError

    async def leave(self) -> None:
        """See `Channel`; not offered."""
        raise NotImplementedError

    def gap(self, data: str) -> tuple[int, int] | None:
        """See `Channel`; not offered."""
        raise NotImplementedError

    async def history(self, first: int, last: int) -> list[Sent]:
        """See `Channel`; not offered."""
        raise NotImplementedError

    def _fill(self, text: str) -> str:
        return text.replace("{channel}", self._name)


class OtherTarget:
    """See `Target`. Where it can be restarted, one client uses it at a time."""

    refused_event: str | None = None
    gap_event: str | None = None
    replay_limit = 0

    def __init__(self, description: Description) -> None:
        self._description = description
        self.name = description.name
        self.reading = description.reading
        self.longest_text_bytes = description.longest_text_bytes
        self.ready_event = description.ready_event
        self.heartbeat_event = description.heartbeat_event
        self.controls = _controls(description)
        self._alone = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def channel(self, controls: frozenset[Control]) -> AsyncIterator[OtherChannel]:
        """See `Target`."""
        alone = self._alone if Control.RESTART in self.controls else contextlib.nullcontext()
        async with alone, httpx.AsyncClient(timeout=30, trust_env=False) as http:
            yield OtherChannel(self._description, http)


def other_target(path: Path) -> OtherTarget:
    """Read the file. Raises msgspec.ValidationError, which names the field."""
    document = tomllib.loads(path.read_text(encoding="utf-8"))
    description = msgspec.convert(document, Description)
    if (description.post.url is None) == (description.post.command is None):
        raise msgspec.ValidationError("post: one of url and command is needed")
    if urlsplit(description.stream_url).scheme != "http":
        raise msgspec.ValidationError("stream_url: only http:// can be cut")
    return OtherTarget(description)


def _controls(description: Description) -> frozenset[Control]:
    offered = set()
    # Messages are posted while it is stopped, so they have to be posted past it: by a command.
    if description.stop_command and description.start_command and description.post.command:
        offered.add(Control.RESTART)
    if description.heartbeat_event is not None:
        offered.add(Control.HEARTBEAT)
    if urlsplit(description.stream_url).hostname in _LOOPBACK:
        offered.add(Control.LOOPBACK)
    return frozenset(offered)


async def _run(command: Sequence[str], text: bytes = b"") -> None:
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL
    )
    async with asyncio.timeout(_COMMAND_TIMEOUT_S):
        await process.communicate(text)
    if process.returncode != 0:
        raise OSError(f"{command[0]} ended with {process.returncode}")
