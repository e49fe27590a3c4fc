"""Serving in this process: the application, in the server."""

from __future__ import annotations

import os
import socket

from service import __version__
from service.app import create_app
from service.http.server import Server, config
from service.settings import Settings

FAULT_VARIABLE = "SEQSTREAM_FAULT"


def run(
    settings: Settings, *, host: str, port: int, listening: socket.socket | None = None
) -> bool:
    """Serve in this process until SIGTERM or SIGINT; tell whether all was as it should be.

    Else it never started, or one of its tasks ended by itself: a supervisor starts another.

    `listening` is a socket to serve on instead of host and port.
    """
    made = create_app(settings, version=__version__, fault=os.environ.get(FAULT_VARIABLE))
    served = config(made.app, host=host, port=port, short_way=made.direct, intake=made.intake)
    server = Server(served, made.drain, made.intake, made.ended.append)
    server.run(sockets=None if listening is None else [listening])
    return server.started and not made.ended
