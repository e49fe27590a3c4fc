"""The assistants of plan mode: an OpenAI-compatible endpoint, or the built-in one.

An assistant turns a conversation into pieces of text; `answer_writer.py` makes an answer of them.
An error raised here never contains a key, an address or text from the endpoint.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from typing import Literal, Protocol
from urllib.parse import urlsplit, urlunsplit

import httpx
import msgspec

from service.settings import Settings

MAX_LINE_BYTES = 1024 * 1024
_CONNECT_TIMEOUT_S = 10.0
_PATH = "/chat/completions"

Role = Literal["user", "assistant", "system"]


class Turn(msgspec.Struct, frozen=True):
    """One message of a conversation, in the form that an endpoint expects."""

    role: Role
    content: str


class AssistantError(Exception):
    """The answer failed or broke off. The text is one sentence for the user."""


class Assistant(Protocol):
    """Answers conversations. Several calls may run at once."""

    def answer(self, turns: Sequence[Turn]) -> AsyncGenerator[str, None]:
        """Yield the pieces of an answer to the last turn. Raises `AssistantError`."""

    async def close(self) -> None:
        """Close the connections."""


class BuiltIn:
    """Needs no network: repeats the question and a fixed plan, in small pieces like a model."""

    def __init__(self, pause_s: float = 0.02) -> None:
        self._pause_s = pause_s

    async def answer(self, turns: Sequence[Turn]) -> AsyncGenerator[str, None]:
        """Yield the answer word by word."""
        asked = " ".join(turns[-1].content.split())
        words = asked.split(" ")
        shown = asked if len(words) <= 40 else " ".join(words[:40]) + " …"
        plan = (
            f"You asked: {shown}\n\n"
            "A plan:\n1. Agree on what it is for.\n2. Make the smallest part that works.\n"
            "3. Show it and go on from there.\n\n"
            "(This is the built-in assistant; set SEQSTREAM_ASSISTANT_URL for a real one.)"
        )
        for piece in re.findall(r"\s*\S+", plan):
            yield piece
            await asyncio.sleep(self._pause_s)

    async def close(self) -> None:
        """Do nothing: it has no connections."""


class _Delta(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    delta: _Delta = msgspec.field(default_factory=_Delta)
    finish_reason: str | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = []
    error: object = None


_decode = msgspec.json.Decoder(_Chunk).decode


class ChatCompletions:
    """An endpoint that speaks OpenAI's chat-completions protocol, over HTTP, streaming.

    `timeout_s` bounds a whole answer.
    """

    def __init__(self, url: str, model: str, key: str | None, *, timeout_s: float) -> None:
        self._url = _endpoint(url)
        self._model = model
        self._timeout_s = timeout_s
        headers = {"Accept": "text/event-stream"}
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        self._client = httpx.AsyncClient(
            headers=headers,
            timeout=httpx.Timeout(timeout_s, connect=min(_CONNECT_TIMEOUT_S, timeout_s)),
        )

    async def answer(self, turns: Sequence[Turn]) -> AsyncGenerator[str, None]:
        """Yield the model's text as it arrives."""
        body = {"model": self._model, "stream": True, "messages": list(turns)}
        try:
            async with asyncio.timeout(self._timeout_s):
                async with self._client.stream(
                    "POST",
                    self._url,
                    content=msgspec.json.encode(body),
                    headers={"Content-Type": "application/json"},
                ) as response:
                    if response.status_code != 200:
                        raise AssistantError(
                            f"the assistant's endpoint answered with status {response.status_code}"
                        )
                    async for piece in _pieces(response):
                        yield piece
        except TimeoutError:
            raise AssistantError("the assistant did not answer in time") from None
        except httpx.TimeoutException:
            raise AssistantError("the assistant did not answer in time") from None
        except httpx.HTTPError:
            raise AssistantError("the connection to the assistant failed") from None

    async def close(self) -> None:
        """Close the connections to the endpoint."""
        await self._client.aclose()


async def _pieces(response: httpx.Response) -> AsyncIterator[str]:
    async with aclosing(_data_lines(response)) as lines:
        async for data in lines:
            if data == b"[DONE]":
                return
            try:
                chunk = _decode(data)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                raise AssistantError("the assistant's endpoint answered in another form") from None
            if chunk.error is not None:
                raise AssistantError("the assistant's endpoint reported an error")
            for choice in chunk.choices[:1]:
                if choice.delta.content:
                    yield choice.delta.content
    raise AssistantError("the assistant's answer broke off")


async def _data_lines(response: httpx.Response) -> AsyncGenerator[bytes, None]:
    """Yield the `data:` lines of an event stream.

    Splits bytes at line feeds only: text line readers also split at U+2028 and similar characters,
    which JSON may contain unescaped.
    """
    rest = b""
    async for block in response.aiter_bytes():
        *lines, rest = (rest + block).split(b"\n")
        if len(rest) > MAX_LINE_BYTES:
            raise AssistantError("the assistant's endpoint answered in another form")
        for line in lines:
            if line.startswith(b"data:"):
                yield line[5:].strip()


def _endpoint(url: str) -> str:
    """Return the endpoint's URL; the setting may name it or its base URL."""
    parts = urlsplit(url)
    path = parts.path.rstrip("/")
    if not path.endswith(_PATH):
        path += _PATH
    return urlunsplit(parts._replace(path=path))


def assistant_of(settings: Settings) -> Assistant:
    """Return the assistant that the settings select."""
    if settings.assistant_url is None:
        return BuiltIn()
    return ChatCompletions(
        settings.assistant_url,
        settings.assistant_model or "",
        settings.assistant_key,
        timeout_s=settings.assistant_timeout_s,
    )
