"""One request to any of several processes, repeated until one of them answers it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import httpx
import msgspec

from tests.support.signing import signed_headers

_RETRY_S = 0.1


class RefusedError(Exception):
    """A request was refused permanently (a 4xx answer other than 429)."""


async def post_until_answered(
    http: httpx.AsyncClient,
    urls: Iterator[str],
    target: str,
    user_id: str,
    body: object = None,
    *,
    scope: str | None = None,
    retry: int | None = None,
) -> httpx.Response:
    """Return the first response of 2xx; `retry` is one more status that passes with time.

    Raises:
        RefusedError: another response, which no repeat would change.
    """
    content = b"" if body is None else msgspec.json.encode(body)
    for url in urls:
        headers = signed_headers("POST", target, user_id, content, scope=scope)
        if content:
            headers["Content-Type"] = "application/json"
        try:
            response = await http.post(url + target, content=content or None, headers=headers)
        except httpx.TransportError:
            await asyncio.sleep(_RETRY_S)
            continue
        status = response.status_code
        if status < 300:
            return response
        if status < 500 and status not in (429, retry):
            raise RefusedError(f"{target}: {status}: {response.text[:300]}")
        await asyncio.sleep(_RETRY_S)
    raise AssertionError("no more addresses")
