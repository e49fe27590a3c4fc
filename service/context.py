"""What the routes work with: the parts of one process, made in `app.py`, reached from a request."""

from __future__ import annotations

import time
from typing import Any

import msgspec
from litestar.connection import ASGIConnection
from litestar.types import HTTPScope

from service.access import AccessControl
from service.answers import AnswerDesk
from service.auth import (
    Caller,
    SignedCredentials,
    TokenVerifier,
    read_credentials,
    verify_signature,
)
from service.metrics import Metrics
from service.open_streams import OpenStreams
from service.posting import Posting
from service.settings import Settings
from streams.eventlog import EventLog


class Context(msgspec.Struct, frozen=True):
    """The parts of a running service."""

    settings: Settings
    log: EventLog
    metrics: Metrics
    access: AccessControl
    streams: OpenStreams
    answers: AnswerDesk
    posting: Posting
    tokens: TokenVerifier

    def authenticate(self, scope: HTTPScope, body: bytes, *, query_token: bool) -> Caller:
        """Return who the caller is, or raise `AuthenticationError`: see PROTOCOL.md §3."""
        query = scope["query_string"]
        credentials = read_credentials(scope["headers"], query, query_token=query_token)
        if not isinstance(credentials, SignedCredentials):
            return self.tokens.verify(credentials.token)
        target = scope["raw_path"]
        if query:
            target += b"?" + query
        return verify_signature(
            self.settings.hmac_secrets,
            now_s=time.time(),
            method=scope["method"],
            raw_target=target,
            user_id=credentials.user_id,
            timestamp=credentials.timestamp,
            signature=credentials.signature,
            body=body,
        )


def context_of(connection: ASGIConnection[Any, Any, Any, Any]) -> Context:
    """Return the parts of the process that serves this connection."""
    context = connection.app.state.context
    assert isinstance(context, Context)
    return context
