"""Logs: one format for the library, the service and uvicorn, without secrets."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn

from service.telemetry.logs import configure

SECRET = "s3cret-value"


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Restore logging, which is global to the process."""
    loggers = [logging.getLogger(name) for name in (None, *_NAMES)]
    before = [(log, log.handlers[:], log.level, log.propagate, log.disabled) for log in loggers]
    yield
    for log, handlers, level, propagate, disabled in before:
        log.handlers[:], log.propagate, log.disabled = handlers, propagate, disabled
        log.setLevel(level)


_NAMES = ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi", "httpx")


def lines(out: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_json_line_has_message_and_fields() -> None:
    """One line per event: constant message, level, logger, time in UTC, and the fields."""
    out = io.StringIO()
    configure("info", "json", out)
    logging.getLogger("streams.tail.tail").warning("healed", extra={"project_id": "p1", "seq": 7})
    [line] = lines(out)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "message": "healed",
        "level": "warning",
        "logger": "streams.tail.tail",
        "project_id": "p1",
        "seq": 7,
    }


def test_field_does_not_replace_the_message() -> None:
    """A field with the name of message, level, logger or time does not replace it."""
    out = io.StringIO()
    configure("info", "json", out)
    fields = {"event": "message.new", "level": "x", "logger": "x", "timestamp": "x"}
    logging.getLogger("service.app").info("sent", extra=fields)
    [line] = lines(out)
    assert (line["message"], line["event"]) == ("sent", "message.new")
    assert (line["level"], line["logger"]) == ("info", "service.app")
    assert line["timestamp"] != "x"


def test_console_shows_message_and_fields() -> None:
    """On one line, without colours when the stream is not a terminal."""
    out = io.StringIO()
    configure("info", "console", out)
    logging.getLogger("streams.tail.tail").warning("healed", extra={"project_id": "p1"})
    assert "healed" in out.getvalue()
    assert "project_id=p1" in out.getvalue()
    assert "\x1b" not in out.getvalue()


def test_level_is_kept() -> None:
    """§7: SEQSTREAM_LOG_LEVEL."""
    out = io.StringIO()
    configure("warning", "json", out)
    logging.getLogger("streams.tail.tail").info("fine")
    assert out.getvalue() == ""


def test_configuring_again_does_not_duplicate_lines() -> None:
    """A line is written once, however often a process configures its logs."""
    out = io.StringIO()
    configure("info", "json", io.StringIO())
    configure("info", "json", out)
    logging.getLogger("service.app").info("started")
    assert len(lines(out)) == 1


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_known_secrets_are_dropped(log_format: Any) -> None:
    """No secret and no payload in a log, at any depth and in any case."""
    out = io.StringIO()
    configure("info", log_format, out)
    logging.getLogger("service.app").info(
        "asked",
        extra={
            "token": SECRET,
            "database_url": SECRET,
            "text": SECRET,
            "headers": {"Authorization": SECRET, "Cookie": SECRET, "Accept": "kept"},
        },
    )
    assert SECRET not in out.getvalue()
    assert "kept" in out.getvalue()


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_stack_is_shown_without_variables(log_format: Any) -> None:
    """A failure is logged with its stack, and without the values of local variables."""
    out = io.StringIO()
    configure("info", log_format, out)

    def fail() -> None:
        held = "".join(["held-", "in-a-variable"])
        raise RuntimeError(len(held))

    try:
        fail()
    except RuntimeError:
        logging.getLogger("service.app").exception("failed")
    assert "RuntimeError: 18" in out.getvalue()
    assert "test_logs.py" in out.getvalue()
    assert "held-in-a-variable" not in out.getvalue()


def test_uvicorn_has_the_same_format_and_no_access_log() -> None:
    """URLs may hold a token, so they are not logged."""
    out = io.StringIO()
    configure("info", "json", out)
    uvicorn.Config(app="none:app", log_config=None, access_log=False)
    logging.getLogger("uvicorn.error").info(
        "Started server process [%d]", 7, extra={"color_message": "coloured"}
    )
    logging.getLogger("uvicorn.access").info("GET /v1/projects/p/chat/stream?token=%s", SECRET)
    [line] = lines(out)
    assert line["message"] == "Started server process [7]"
    assert "color_message" not in line


def test_one_event_is_one_line() -> None:
    """A newline in a field cannot forge a second line."""
    out = io.StringIO()
    configure("info", "json", out)
    logging.getLogger("service.app").info("asked", extra={"user_id": 'a\n{"message":"forged"}'})
    assert len(lines(out)) == 1
