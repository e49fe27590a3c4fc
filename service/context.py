"""What the routes work with: the parts of one process, made in `app.py`, reached from a request."""

from __future__ import annotations

import time
from typing import Any

import msgspec
from litestar.connection import ASGIConnection
from litestar.types import HTTPScope

from service.access.creation_limit import CreationLimit
from service.access.credentials import (
    Caller,
    SignedCredentials,
    TokenVerifier,
    read_credentials,
    verify_signature,
)
from service.access.membership import AccessControl
from service.access.origin import may_use_cookie
from service.access.posting import Posting
from service.access.read_slots import ReadSlots
from service.assistant.answer_desk import AnswerDesk
from service.http.api_errors import forbidden
from service.settings import Settings
from service.streaming.open_streams import OpenStreams
from service.telemetry.metrics import Metrics
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
    reads: ReadSlots
    tokens: TokenVerifier
    creations: CreationLimit

    def authenticate(self, scope: HTTPScope, body: bytes, *, query_token: bool) -> Caller:
        """Return who the caller is: see docs/protocol.md §3.

        Raises:
            AuthenticationError: the caller is not known.
            ApiError: 403, a write by a cookie that another site's page may have sent.
        """
        query = scope["query_string"]
        credentials = read_credentials(scope["headers"], query, query_token=query_token)
        if not isinstance(credentials, SignedCredentials):
            caller = self.tokens.verify(credentials.token)
            if credentials.from_cookie and not may_use_cookie(
                scope["method"], scope["headers"], scope["scheme"], self.settings.cors_origins
            ):
                raise forbidden("A write with a cookie needs an Origin that may use it")
            return caller
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
            scope=credentials.scope,
            body=body,
        )


def context_of(connection: ASGIConnection[Any, Any, Any, Any]) -> Context:
    """Return the parts of the process that serves this connection."""
    context = connection.app.state.context
    assert isinstance(context, Context)
    return context
