"""Verifies the credentials of a request, before its body is read where that is possible.

A token is verified without the body. A signature covers the body, so only its form, timestamp and
user id are checked before the body is read, within the bounds of size and time.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence

from litestar.types import HTTPScope

from service.access.credentials import SignedCredentials, read_credentials
from service.access.identity import Caller
from service.access.origin import may_use_cookie
from service.access.signatures import check_before_body, verify_signature
from service.access.tokens import TokenVerifier
from service.http.api_errors import forbidden


class Callers:
    """Authenticates requests (docs/protocol.md §3)."""

    def __init__(
        self,
        hmac_secrets: Sequence[str],
        tokens: TokenVerifier,
        cors_origins: Sequence[str],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Pages of `cors_origins` may write with the cookie; the clock is unix time in seconds."""
        self._hmac_secrets = hmac_secrets
        self._tokens = tokens
        self._cors_origins = cors_origins
        self._clock = clock

    def authenticate(self, scope: HTTPScope, body: bytes, *, query_token: bool) -> Caller:
        """Return the verified caller.

        Raises:
            AuthenticationError: the credentials are missing or not valid.
            ApiError: 403, a write by a cookie that another site's page may have sent.
        """
        query = scope["query_string"]
        credentials = read_credentials(scope["headers"], query, query_token=query_token)
        if not isinstance(credentials, SignedCredentials):
            caller = self._tokens.verify(credentials.token)
            if credentials.from_cookie and not may_use_cookie(
                scope["method"], scope["headers"], scope["scheme"], self._cors_origins
            ):
                raise forbidden("A write with a cookie needs an Origin that may use it")
            return caller
        target = scope["raw_path"]
        if query:
            target += b"?" + query
        return verify_signature(
            self._hmac_secrets,
            now_s=self._clock(),
            method=scope["method"],
            raw_target=target,
            user_id=credentials.user_id,
            timestamp=credentials.timestamp,
            signature=credentials.signature,
            scope=credentials.scope,
            body=body,
        )

    async def read(
        self, scope: HTTPScope, read: Callable[[], Awaitable[bytes]], *, query_token: bool
    ) -> tuple[Caller, bytes]:
        """Return the caller and the body; no body is read when the credentials are refused.

        Raises:
            AuthenticationError: the credentials are missing or not valid.
            ApiError: as `authenticate`, and what `read` raises.
        """
        credentials = read_credentials(
            scope["headers"], scope["query_string"], query_token=query_token
        )
        if isinstance(credentials, SignedCredentials):
            check_before_body(credentials, self._clock())
            body = await read()
            return self.authenticate(scope, body, query_token=query_token), body
        caller = self.authenticate(scope, b"", query_token=query_token)
        return caller, await read()
