"""Requests to the service: the only file that uses httpx, and translates its exceptions.

One attempt, or attempts until a deadline; the token; the form of an error; bounds of what is read.
What a stream says is in `following.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx
import msgspec

from service.client.client_backoff import ClientBackoff
from service.client.client_errors import (
    ClientClosed,
    ProtocolViolation,
    Refused,
    TooLarge,
    Unauthenticated,
    Unavailable,
    refused,
)
from service.client.token_source import TokenSource

MAX_BODY_BYTES = 64 * 1024 * 1024
_MAX_ERROR_BYTES = 64 * 1024
_CONNECT_TIMEOUT_S = 5.0
_ATTEMPT_TIMEOUT_S = 10.0
_OPEN_TIMEOUT_S = 30.0
_PASSING = frozenset({408, 425, 429})
"""A retry may succeed, as after every status from 500 on."""


class Interrupted(Exception):
    """An attempt failed in a way that passes; never leaves the room."""

    def __init__(self, why: str, retry_after_s: float | None = None) -> None:
        super().__init__(why)
        self.why = why
        self.retry_after_s = retry_after_s


class _ErrorBody(msgspec.Struct, rename="camel"):
    error: str = "no reason given"
    code: str = "UNKNOWN"
    details: Any = None
    request_id: str | None = None


class Exchange:
    """Requests to one address with one token."""

    def __init__(self, http: httpx.AsyncClient, base_url: str, tokens: TokenSource) -> None:
        self._http = http
        self._base_url = base_url
        self._tokens = tokens
        self._closed = False

    @property
    def can_renew(self) -> bool:
        """Whether another token can be had when this one has expired."""
        return self._tokens.can_renew

    def close(self) -> None:
        """Let every further request raise `ClientClosed`."""
        self._closed = True

    async def call(
        self,
        method: str,
        path: str,
        *,
        timeout_s: float,
        params: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> bytes:
        """Return the body of a good answer, in as many attempts as the timeout allows.

        Only for requests that may be repeated.

        Raises:
            Refused: the service answered with an error that a retry does not mend.
            Unavailable: no answer in time.
            ClientError: see the tree.
        """
        backoff = ClientBackoff(first_s=0.2, most_s=5.0)
        attempts, last = 0, "not answered"
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    attempts += 1
                    try:
                        return await self._once(method, path, params or {}, body)
                    except Interrupted as error:
                        last = error.why
                        await asyncio.sleep(backoff.next_s(error.retry_after_s))
        except TimeoutError:
            raise Unavailable(last, attempts=attempts) from None

    async def _once(
        self, method: str, path: str, params: Mapping[str, str], body: bytes | None
    ) -> bytes:
        headers = {"Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        request = self._http.build_request(
            method,
            self._base_url + path,
            params=dict(params) or None,
            content=body,
            headers=headers,
            timeout=httpx.Timeout(_ATTEMPT_TIMEOUT_S, connect=_CONNECT_TIMEOUT_S),
        )
        async with self._answered(request) as response:
            return await _body(response, MAX_BODY_BYTES)

    @contextlib.asynccontextmanager
    async def stream(
        self,
        path: str,
        *,
        silence_s: float,
        params: Mapping[str, str],
        headers: Mapping[str, str],
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Open a stream; the bytes as they arrive. `silence_s` without any ends it.

        Raises:
            Interrupted: it cannot be opened now, or it broke.
            ClientError: see the tree.
        """
        request = self._http.build_request(
            "GET",
            self._base_url + path,
            params=dict(params) or None,
            # A compressed stream is held back by whatever compresses it.
            headers={
                "Accept": "text/event-stream",
                "Accept-Encoding": "identity",
                "Cache-Control": "no-store",
                **headers,
            },
            timeout=httpx.Timeout(_ATTEMPT_TIMEOUT_S, connect=_CONNECT_TIMEOUT_S, read=silence_s),
        )
        async with self._answered(request) as response:
            kind = response.headers.get("content-type", "")
            if not kind.startswith("text/event-stream"):
                raise ProtocolViolation(f"the stream has the content type {kind[:80]!r}")
            if response.headers.get("content-encoding", "identity") != "identity":
                raise ProtocolViolation("the stream is compressed")
            yield response.aiter_raw()

    @contextlib.asynccontextmanager
    async def _answered(self, request: httpx.Request) -> AsyncIterator[httpx.Response]:
        """Send a request; yield its response when that is a good one.

        Translates what httpx raises, also inside the block.
        """
        response: httpx.Response | None = None
        try:
            response = await self._send(request)
            yield response
        except (httpx.HTTPError, httpx.StreamError) as error:
            if self._closed:
                raise ClientClosed("the client was closed") from None
            raise Interrupted(f"{type(error).__name__}: {error}".rstrip(": ")) from None
        finally:
            if response is not None:
                await response.aclose()

    async def _send(self, request: httpx.Request) -> httpx.Response:
        for is_last in (not self._tokens.can_renew, True):
            if self._closed:
                raise ClientClosed("the client was closed, or not entered")
            token = await self._tokens.current()
            request.headers["Authorization"] = f"Bearer {token}"
            try:
                # The read timeout begins anew with every byte of a head.
                async with asyncio.timeout(_OPEN_TIMEOUT_S):
                    response = await self._http.send(request, stream=True)
            except TimeoutError:
                raise Interrupted("no head of a response in time") from None
            if response.status_code in (200, 201, 202):
                return response
            try:
                await _raise_for(response)
            except Unauthenticated:
                if is_last:
                    raise
                await self._tokens.renew(token)
            finally:
                await response.aclose()
        raise AssertionError("the last attempt returns or raises")


async def _body(response: httpx.Response, limit_bytes: int) -> bytes:
    pieces: list[bytes] = []
    size_bytes = 0
    async for piece in response.aiter_bytes():
        size_bytes += len(piece)
        if size_bytes > limit_bytes:
            raise TooLarge("a response", limit_bytes)
        pieces.append(piece)
    return b"".join(pieces)


async def _raise_for(response: httpx.Response) -> None:
    """Raise the error that a response stands for."""
    status = response.status_code
    if status in _PASSING or status >= 500:
        raise Interrupted(f"status {status}", _retry_after_s(response))
    if status < 400:
        raise ProtocolViolation(f"unexpected status {status}")
    try:
        body = msgspec.json.decode(await _body(response, _MAX_ERROR_BYTES), type=_ErrorBody)
    except (msgspec.DecodeError, TooLarge):
        body = _ErrorBody()
    error: Refused = refused(
        status, body.code, body.error, details=body.details, request_id=body.request_id
    )
    raise error


def _retry_after_s(response: httpx.Response) -> float | None:
    """Return the seconds of `Retry-After`; a date there is of no use without a common clock."""
    text = response.headers.get("retry-after", "")
    return float(text) if text.isascii() and text.isdigit() and len(text) < 9 else None
