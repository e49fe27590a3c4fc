"""The token of a client: one text, or a callable that returns a fresh one.

Nothing of a token is looked at here, and none is ever logged.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable

from service.client.client_errors import ClientError, TokenFailed

Token = str | Callable[[], str] | Callable[[], Awaitable[str]]

_TIMEOUT_S = 30.0


class TokenSource:
    """The current token. Renewals that are asked for at the same time are one."""

    def __init__(self, token: Token) -> None:
        self._make = None if isinstance(token, str) else token
        self._token = token if isinstance(token, str) else None
        self._making = asyncio.Lock()

    @property
    def can_renew(self) -> bool:
        """Whether there is a callable."""
        return self._make is not None

    async def current(self) -> str:
        """Return the token. Raises `TokenFailed` when there is none yet and none can be made."""
        if self._token is None:
            await self.renew(None)
        assert self._token is not None
        return self._token

    async def renew(self, refused: str | None) -> None:
        """Have another token made, unless that of `refused` was replaced meanwhile.

        Raises:
            TokenFailed: the callable raised an exception, or took too long.
        """
        if self._make is None:
            return
        async with self._making:
            if self._token is not None and self._token != refused:
                return
            try:
                async with asyncio.timeout(_TIMEOUT_S):
                    made = self._make()
                    token = await made if inspect.isawaitable(made) else made
            except ClientError:
                raise
            except Exception as error:
                raise TokenFailed("no token could be had") from error
            _check(token)
            self._token = token


def check_token(token: Token) -> Token:
    """Return the token, unless it is a text that no header can carry."""
    if isinstance(token, str):
        _check(token)
    return token


def _check(token: str) -> None:
    # It becomes a header: a line break in it would begin another one.
    if not token or not token.isascii() or not token.isprintable():
        raise TokenFailed("the token is empty, or has characters that no header can carry")
