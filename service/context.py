"""The parts of one process that the routes use, made in `app.py` and reached from a request."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar.connection import ASGIConnection

from service.access.answer_pace import AnswerPace
from service.access.callers import Callers
from service.access.creation_limit import CreationLimit
from service.access.membership import AccessControl
from service.access.posting import Posting
from service.assistant.answer_desk import AnswerDesk
from service.console.console import Console
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
    answer_pace: AnswerPace
    posting: Posting
    callers: Callers
    creations: CreationLimit
    console: Console


def context_of(connection: ASGIConnection[Any, Any, Any, Any]) -> Context:
    """Return the parts of the process that serves this connection."""
    context = connection.app.state.context
    assert isinstance(context, Context)
    return context
