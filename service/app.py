"""The composition root: makes the parts of the process and the application around them.

No behaviour is here: each part is made with what it uses, and the server gets what it needs.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, NamedTuple

from litestar import Litestar, Router
from litestar.types import ASGIApp
from prometheus_client import CollectorRegistry

from service.access.answer_pace import AnswerPace
from service.access.authentication import Authentication
from service.access.callers import Callers
from service.access.creation_limit import CreationLimit
from service.access.limits import Slots
from service.access.membership import AccessControl
from service.access.post_limit import PostLimit
from service.access.posting import Posting
from service.access.read_slots import ReadSlots
from service.access.tokens import TokenVerifier
from service.assistant.answer_desk import AnswerDesk
from service.assistant.assistant_selection import assistant_of
from service.background import running
from service.console.console import Console
from service.context import Context
from service.http.body import MAX_BODY_BYTES
from service.http.cors import StreamCors, route_config
from service.http.error_answers import exception_handlers, with_request_id
from service.http.intake import Intake
from service.routes import (
    answers,
    builds,
    chat,
    client_module,
    console,
    ephemeral,
    health,
    messages,
    outside_answers,
    page,
    projects,
)
from service.routes.direct_append import DirectAppend
from service.routes.documents import stream_path
from service.routes.front import Front
from service.settings import Settings
from service.streaming.open_streams import OpenStreams
from service.telemetry.build_gauges import measure
from service.telemetry.metrics import Metrics
from service.telemetry.metrics_observer import MetricsObserver
from streams.answers.answer_values import OutsideBounds
from streams.builds.build_values import BuildBounds
from streams.eventlog import EventLog, EventLogConfig


class Made(NamedTuple):
    """The application, and what the server uses beside it.

    `drain` ends the streams and answers before the server shuts down; `direct` serves single
    appends without the application; `intake` bounds what the connections receive. `ended` lists
    the tasks that ended by themselves: each of them ends the service.
    """

    app: ASGIApp
    drain: Callable[[], Awaitable[None]]
    direct: DirectAppend
    intake: Intake
    ended: list[str]


class ContextHolder:
    """Keeps the context from the start of the application, for code outside of Litestar.

    A request of the stream or of the direct append reads it here: looking it up in Litestar's
    state is slow.
    """

    __slots__ = ("_context",)

    def __init__(self) -> None:
        self._context: Context | None = None

    def set(self, context: Context) -> None:
        """Keep the context of the application that starts."""
        self._context = context

    def __call__(self) -> Context:
        """Return the context; the application must have started."""
        context = self._context
        assert context is not None
        return context


def create_app(settings: Settings, *, version: str, fault: str | None = None) -> Made:
    """Make the application. It connects when it starts.

    `fault` is a fault point for tests, such as `kill-before-publish:3` (commits).
    """
    metrics = Metrics(
        CollectorRegistry(), multiprocess_dir=os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    )
    callers = Callers(
        settings.hmac_secrets,
        TokenVerifier(settings.token_secrets, time.time),
        settings.cors_origins,
    )
    context = ContextHolder()
    ended: list[str] = []

    @contextlib.asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncIterator[None]:
        async with _running_parts(settings, metrics, callers, version, fault, ended) as parts:
            app.state.context = parts
            context.set(parts)
            yield

    async def drain() -> None:
        await _drain(context())

    app = _routes(settings, metrics, callers, version=version, lifespan=lifespan)
    front = Front(app, context, metrics, StreamCors(settings.cors_origins))
    return Made(
        app=with_request_id(front),
        drain=drain,
        direct=DirectAppend(context, metrics, answers_origins=bool(settings.cors_origins)),
        intake=Intake(limit_bytes=settings.max_pending_bytes, malformed=metrics.http_malformed),
        ended=ended,
    )


@contextlib.asynccontextmanager
async def _running_parts(
    settings: Settings,
    metrics: Metrics,
    callers: Callers,
    version: str,
    fault: str | None,
    ended: list[str],
) -> AsyncIterator[Context]:
    """Connect, and run the tasks of the process; at the end drain the streams and answers."""
    async with EventLog.open(
        settings.database_url,
        settings.redis_url,
        config=_log_config(settings, fault),
        observer=MetricsObserver(metrics),
    ) as log:
        context = _context(settings, metrics, callers, log, version)
        tasks = {
            "parts of the event log": log.failed(),
            "pulse of the streams": context.streams.run(),
            "gauges of the builds": measure(log.builds, metrics),
        }
        async with running(tasks, ended.append):
            try:
                yield context
            finally:
                await _drain(context)
                await context.console.close()


async def _drain(context: Context) -> None:
    await asyncio.gather(context.streams.drain(), context.answers.drain())


def _log_config(settings: Settings, fault: str | None) -> EventLogConfig:
    return EventLogConfig(
        database_pool_size=settings.database_pool_size,
        committers=settings.committers,
        heads_poll_s=settings.heads_poll_ms / 1000,
        presence_grace_s=settings.presence_grace_s,
        append_timeout_s=settings.post_timeout_s,
        answer_lease_s=settings.answer_lease_s,
        outside_bounds=OutsideBounds(
            per_project=settings.max_answers_per_project,
            per_worker=settings.max_answers,
            lease_s=settings.outside_answer_lease_s,
            max_text_bytes=settings.max_text_bytes,
        ),
        build_bounds=BuildBounds(
            per_project=settings.max_builds_per_project,
            per_user=settings.max_builds_per_user,
        ),
        before_publish=fault_point(fault),
    )


def _context(
    settings: Settings, metrics: Metrics, callers: Callers, log: EventLog, version: str
) -> Context:
    access = AccessControl(log)
    streams = OpenStreams(log, access, metrics, settings)
    answers = AnswerDesk(
        log,
        assistant_of(settings),
        Slots(
            per_user=settings.max_answers_per_user,
            per_project=settings.max_answers_per_project,
            in_all=settings.max_answers,
        ),
        metrics,
        lease_s=settings.answer_lease_s,
        timeout_s=settings.assistant_timeout_s,
        max_text_bytes=settings.max_text_bytes,
    )
    return Context(
        settings=settings,
        log=log,
        metrics=metrics,
        access=access,
        streams=streams,
        answers=answers,
        answer_pace=AnswerPace(time.monotonic, metrics.rate_limited.inc),
        posting=Posting(
            access, PostLimit(log, settings, metrics), timeout_s=settings.post_timeout_s
        ),
        callers=callers,
        creations=CreationLimit(settings, metrics),
        console=Console(log, streams, metrics, version=version),
    )


def _routes(
    settings: Settings,
    metrics: Metrics,
    callers: Callers,
    *,
    version: str,
    lifespan: Callable[[Litestar], AbstractAsyncContextManager[None]],
) -> Litestar:
    """Make the framework's application: all routes but the stream, which it only documents."""
    api = Router(
        "/",
        route_handlers=[
            projects.Projects,
            messages.Messages,
            builds.BuildRoutes,
            chat.unified,
            answers.Answers,
            outside_answers.OutsideAnswerRoutes,
            ephemeral.typing,
            ephemeral.presence,
            console.ConsoleRoutes,
        ],
        middleware=[Authentication(callers, ReadSlots(settings.max_reads_per_user), metrics)],
    )
    pages: list[Any] = []
    if settings.docs_page:
        pages = [page.chat_page, page.chat_file, page.demo]
        pages += [page.console_page, page.console_file]
    app = Litestar(
        [
            api,
            health.health,
            health.live,
            health.ready,
            health.metrics,
            client_module.client_file,
            *pages,
        ],
        lifespan=[lifespan],
        exception_handlers=exception_handlers(metrics),
        openapi_config=page.openapi_config(
            title="seqstream", version=version, with_page=settings.docs_page
        ),
        request_max_body_size=MAX_BODY_BYTES,
        cors_config=route_config(settings.cors_origins),
        logging_config=None,
        debug=False,
        pdb_on_exception=False,
    )
    paths = app.openapi_schema.paths
    assert paths is not None
    paths["/v1/projects/{project_id}/chat/stream"] = stream_path()
    return app


def fault_point(fault: str | None) -> Callable[[int], None] | None:
    """Return the fault that a test injects between a commit and its publishing."""
    if fault is None:
        return None
    name, _, number = fault.partition(":")
    if name not in ("kill-before-publish", "fail-before-publish") or not number.isdigit():
        raise ValueError("SEQSTREAM_FAULT: only kill-before-publish:<n>, fail-before-publish:<n>")

    def happen(commits: int) -> None:
        if commits < int(number):
            return
        if name == "fail-before-publish":
            raise RuntimeError("a committer was chosen to end")
        os.kill(os.getpid(), signal.SIGKILL)

    return happen
