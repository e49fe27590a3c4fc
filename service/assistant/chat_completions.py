"""An assistant behind OpenAI's chat-completions protocol: the request and the stream of its answer.

What a chunk of the stream says is in `completion_chunks.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from urllib.parse import urlsplit, urlunsplit

import httpx
import msgspec

from service.assistant.assistants import AssistantError, Turn
from service.assistant.completion_chunks import ChunkReader
from streams.answers.pieces import Piece

MAX_LINE_BYTES = 1024 * 1024
_CONNECT_TIMEOUT_S = 10.0
_PATH = "/chat/completions"


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

    async def answer(self, turns: Sequence[Turn]) -> AsyncGenerator[Piece, None]:
        """Yield what the model writes, thinks and calls as it arrives."""
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


async def _pieces(response: httpx.Response) -> AsyncIterator[Piece]:
    reader = ChunkReader()
    async with aclosing(_data_lines(response)) as lines:
        async for data in lines:
            if data == b"[DONE]":
                return
            for piece in reader.pieces(data):
                yield piece
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
