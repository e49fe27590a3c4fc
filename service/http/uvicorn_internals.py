"""The inside of uvicorn, httptools and uvloop that the service relies on, named in one place.

uvicorn documents none of these classes as an interface. So this module imports them, lists what
the protocol and the server use of them, and checks at import that all of it is there: a changed
release stops the process at its start, not in the middle of a request. No behaviour of the
service belongs here. `server.py` alone imports uvicorn beside it, for its public `Server` and
`Config`.
"""

from __future__ import annotations

import asyncio
import contextlib
import dis
import fcntl
import inspect
import os
import socket
import struct
import termios
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import Any

import httptools
import msgspec
import uvicorn
import uvloop.loop
from httptools import HttpParserError, HttpParserUpgrade
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)
from uvicorn.server import ServerState

__all__ = [
    "HIGH_WATER_LIMIT",
    "STATUS_LINE",
    "HttpParserError",
    "HttpParserUpgrade",
    "HttpToolsProtocol",
    "IncompatibleDriver",
    "RequestResponseCycle",
    "duplicate_socket",
    "unacknowledged_bytes",
]


class IncompatibleDriver(ImportError):
    """An installed uvicorn, httptools or uvloop lacks what the service's protocol relies on."""

    def __init__(self, missing: Sequence[str]) -> None:
        found = ", ".join(f"{name} {version(name)}" for name in ("uvicorn", "httptools", "uvloop"))
        super().__init__(
            f"service/http does not work with {found}; missing or changed: {', '.join(missing)}"
        )
        self.missing = tuple(missing)


class Expected(msgspec.Struct, frozen=True):
    """What one class of a driver must have.

    `methods` maps a name to its parameters after `self` (None: compiled code, only its presence
    is checked); `attributes` are assigned by the methods in `assigned_in`.
    """

    owner: type
    methods: Mapping[str, Sequence[str] | None] = {}
    attributes: Sequence[str] = ()
    assigned_in: Sequence[str] = ("__init__",)
    # Whether subclasses' instances keep a `__dict__`, beside the slots that ours declare.
    has_dict: bool = False


_PROTOCOL = Expected(
    HttpToolsProtocol,
    methods={
        "__init__": ("config", "server_state", "app_state", "_loop"),
        "_start_asgi_task": ("cycle", "app"),
        "connection_lost": ("exc",),
        "connection_made": ("transport",),
        "data_received": ("data",),
        "on_body": ("body",),
        "on_header": ("name", "value"),
        "on_headers_complete": (),
        "on_message_begin": (),
        "on_message_complete": (),
        "on_response_complete": (),
        "on_url": ("url",),
        "pause_writing": (),
        "resume_writing": (),
        "shutdown": (),
    },
    attributes=(
        "access_logger", "app", "cycle", "flow", "headers", "logger", "parser", "pipeline",
        "scope", "server_state", "tasks", "transport", "url",
    ),
    assigned_in=("__init__", "on_message_begin"),
    has_dict=True,
)  # fmt: skip
_CYCLE = Expected(
    RequestResponseCycle,
    methods={
        "__init__": (
            "scope", "transport", "flow", "logger", "access_logger", "access_log",
            "default_headers", "message_event", "expect_100_continue", "keep_alive", "on_response",
        ),
        "receive": (),
        "run_asgi": ("app",),
        "send": ("message",),
    },
    attributes=(
        "body", "default_headers", "disconnected", "keep_alive", "message_event", "more_body",
        "on_response", "response_complete", "response_started", "scope",
        "waiting_for_100_continue",
    ),
    has_dict=True,
)  # fmt: skip
EXPECTED: Sequence[Expected] = (
    _PROTOCOL,
    _CYCLE,
    Expected(
        FlowControl,
        methods={"pause_reading": (), "resume_reading": (), "drain": ()},
        attributes=("write_paused",),
    ),
    Expected(ServerState, attributes=("connections", "default_headers", "tasks", "total_requests")),
    Expected(
        uvicorn.Server,
        methods={
            "capture_signals": (),
            "handle_exit": ("sig", "frame"),
            "main_loop": (),
            "run": ("sockets",),
            "shutdown": ("sockets",),
            "startup": ("sockets",),
        },
        attributes=("server_state", "servers", "should_exit", "started"),
        assigned_in=("__init__", "startup"),
    ),
    Expected(
        httptools.HttpRequestParser,
        methods=dict.fromkeys(
            ("feed_data", "get_http_version", "get_method", "should_keep_alive", "should_upgrade")
        ),
    ),
)

_PYTHON = ("asyncio", "builtins")


def missing_from(expected: Expected) -> Iterator[str]:
    """Name what a class lacks, or has in another form."""
    owner = expected.owner
    for name, parameters in expected.methods.items():
        method = _defined(owner, name)
        if method is None:
            yield f"{owner.__name__}.{name}"
        elif parameters is not None:
            found = tuple(inspect.signature(method).parameters)[1:]
            if found != tuple(parameters):
                yield f"{owner.__name__}.{name}({', '.join(parameters)})"
    assigned: set[str] = set()
    for name in expected.assigned_in:
        if code := getattr(_defined(owner, name), "__code__", None):
            assigned |= {
                step.argval for step in dis.get_instructions(code) if step.opname == "STORE_ATTR"
            }
    yield from (f"{owner.__name__}.{name}" for name in expected.attributes if name not in assigned)
    if expected.has_dict and not owner.__dictoffset__:
        yield f"{owner.__name__}.__dict__"


def _defined(owner: type, name: str) -> Any:
    """Return what a driver's class defines; None for what it only inherits from Python's own."""
    for ancestor in owner.__mro__:
        if name in vars(ancestor) and ancestor.__module__.partition(".")[0] not in _PYTHON:
            return vars(ancestor)[name]
    return None


def check() -> None:
    """Compare what is installed with what the service relies on.

    Raises:
        IncompatibleDriver: something is missing; the text names it and the installed versions.
    """
    missing = [name for expected in EXPECTED for name in missing_from(expected)]
    if not STATUS_LINE.get(200, b"").startswith(b"HTTP/1.1 200 "):
        missing.append("STATUS_LINE")
    lent: Any = getattr(uvloop.loop, "PseudoSocket", None)
    missing += [f"PseudoSocket.{name}" for name in ("family", "fileno") if not hasattr(lent, name)]
    if missing:
        raise IncompatibleDriver(missing)


def duplicate_socket(transport: asyncio.BaseTransport) -> socket.socket | None:
    """Return a socket of the transport's own connection, to be closed; None if it is not TCP.

    A duplicate of the descriptor: the socket that uvloop lends refuses `setsockopt`.

    Raises:
        OSError: the connection is closed, or there is no descriptor left.
    """
    lent = transport.get_extra_info("socket")
    if lent is None or lent.family not in (socket.AF_INET, socket.AF_INET6):
        return None
    return socket.socket(fileno=os.dup(lent.fileno()))


def unacknowledged_bytes(transport: asyncio.BaseTransport) -> int:
    """Return what the system holds for the client and the client has not acknowledged.

    0 where the system does not say.
    """
    lent = transport.get_extra_info("socket")
    if lent is not None:
        with contextlib.suppress(OSError, ValueError):
            queued = fcntl.ioctl(lent.fileno(), termios.TIOCOUTQ, b"0000")
            return int(struct.unpack("i", queued)[0])
    return 0


check()
