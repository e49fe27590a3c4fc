"""One way of logging for the whole process, as JSON lines or for a person's eyes.

Every module, of the library and of the service alike, logs with the standard library, so that the
library forces nothing on its users:

    _log = logging.getLogger(__name__)
    _log.warning("stream was healed", extra={"project_id": project_id, "seq": seq})

The message is constant; what varies is a field. The standard library forbids a few names for
fields (`message`, `name`, `args`, `module`, `process`, …) with a KeyError. structlog is the
formatter behind it and is named in no other file. A payload or a secret belongs in no field; those
that are known by their names are dropped here all the same.
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
# uvicorn adds the message once more with terminal colours.
_NOISE: Final = frozenset({"color_message"})


def configure(
    level: str = "info",
    log_format: Literal["json", "console"] = "json",
    stream: TextIO | None = None,
) -> None:
    """Send all logs of the process to `stream` (standard error), from `level` on.

    Replaces what was configured before. uvicorn must be started with `log_config=None`, or it
    configures its loggers anew.
    """
    shared: list[Processor] = [
        _add_fields,  # first: a field cannot take the level's or the time's place
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
    # A stream's address may hold its token (?token=), and the metrics count requests.
    logging.getLogger("uvicorn.access").disabled = True
    # At INFO it logs every address that it calls.
    logging.getLogger("httpx").setLevel(logging.WARNING)


def drop_secrets(logger: Any, method: str, event: EventDict) -> EventDict:
    """Take the fields out whose names are known to hold secrets or payloads, at any depth."""
    return _without_secrets(event)


def _without_secrets(fields: Mapping[Any, Any]) -> dict[Any, Any]:
    return {
        name: _without_secrets(value) if isinstance(value, Mapping) else value
        for name, value in fields.items()
        if str(name).lower() not in DROPPED_FIELDS | _NOISE
    }


def _add_fields(logger: Any, method: str, event: EventDict) -> EventDict:
    # structlog keeps the message under "event", which is also a fair name for a field.
    message = event["event"]
    event = structlog.stdlib.ExtraAdder()(logger, method, event)
    if event["event"] is not message:
        event["_event"], event["event"] = event["event"], message
    return event


def _renderers(log_format: Literal["json", "console"], *, colors: bool) -> list[Processor]:
    if log_format == "json":
        # The plain stack: structlog's dictionaries of it hold the values of local variables.
        return [
            structlog.processors.format_exc_info,
            structlog.processors.EventRenamer("message", replace_by="_event"),
            structlog.processors.JSONRenderer(),
        ]
    # The same holds for the traceback that it would print by default.
    plain = structlog.dev.plain_traceback
    return [structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=plain)]
