"""The log format of the whole process: JSON lines, or text for a person to read.

Every module of the library and of the service logs with the standard library, so that the library
imposes nothing on its users:

    _log = logging.getLogger(__name__)
    _log.warning("stream was healed", extra={"project_id": project_id, "seq": seq})

The message is constant; whatever varies is a field. The standard library refuses a few names of
fields (`message`, `name`, `args`, `module`, `process`, ...) with a KeyError. structlog formats the
lines, and is imported in this file only. No field may hold a payload or a secret; fields with the
names below are dropped in any case.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from typing import Any, Final, Literal, TextIO

import structlog
from structlog.typing import EventDict, Processor

DROPPED_FIELDS: Final = frozenset(
    {
        # secrets
        "assistant_key",
        "authorization",
        "cookie",
        "database_url",
        "dsn",
        "hmac_secrets",
        "password",
        "redis_url",
        "secret",
        "secrets",
        "set-cookie",
        "signature",
        "token",
        "token_secrets",
        "x-seqstream-signature",
        # payloads
        "body",
        "payload",
        "text",
    }
)
# uvicorn adds the message a second time, with terminal colours.
_NOISE: Final = frozenset({"color_message"})


def configure(
    level: str = "info",
    log_format: Literal["json", "console"] = "json",
    stream: TextIO | None = None,
) -> None:
    """Send all logs of the process from `level` on to `stream` (default: standard error).

    Replaces any earlier configuration. uvicorn must be started with `log_config=None`, or it
    configures its loggers again.
    """
    shared: list[Processor] = [
        _add_fields,  # first, so that a field cannot replace the level or the time
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        drop_secrets,
        # RFC 3339 in UTC with microseconds.
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="timestamp"),
        structlog.processors.StackInfoRenderer(),
    ]
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_renderers(log_format, colors=handler.stream.isatty()),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    # A stream's URL may hold its token (?token=).
    logging.getLogger("uvicorn.access").disabled = True
    # At INFO it logs every URL that it requests.
    logging.getLogger("httpx").setLevel(logging.WARNING)


def drop_secrets(logger: Any, method: str, event: EventDict) -> EventDict:
    """Remove fields whose names say that they hold secrets or payloads, at any depth."""
    return _without_secrets(event)


def _without_secrets(fields: Mapping[Any, Any]) -> dict[Any, Any]:
    return {
        name: _without_secrets(value) if isinstance(value, Mapping) else value
        for name, value in fields.items()
        if str(name).lower() not in DROPPED_FIELDS | _NOISE
    }


def _add_fields(logger: Any, method: str, event: EventDict) -> EventDict:
    # structlog keeps the message under "event", which a field may be called too.
    message = event["event"]
    event = structlog.stdlib.ExtraAdder()(logger, method, event)
    if event["event"] is not message:
        event["_event"], event["event"] = event["event"], message
    return event


def _renderers(log_format: Literal["json", "console"], *, colors: bool) -> list[Processor]:
    if log_format == "json":
        # The plain stack: structlog's structured one holds the values of local variables.
        return [
            structlog.processors.format_exc_info,
            structlog.processors.EventRenamer("message", replace_by="_event"),
            structlog.processors.JSONRenderer(),
        ]
    # Its default traceback shows the values of local variables too.
    plain = structlog.dev.plain_traceback
    return [structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=plain)]
