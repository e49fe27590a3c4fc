"""Serving in this process: connects the application with the server that runs it."""

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
    """Serve in this process until SIGTERM or SIGINT; return whether it ended as it should.

    False: it never started, or one of its tasks ended by itself. A supervisor then starts another
    process. `listening` is a socket to serve on instead of host and port.
    """
    created = create_app(settings, version=__version__, fault=os.environ.get(FAULT_VARIABLE))
    server_config = config(
        created.app, host=host, port=port, fast_path=created.direct, intake=created.intake
    )
    server = Server(server_config, created.drain, created.intake, created.ended.append)
    server.run(sockets=None if listening is None else [listening])
    return server.started and not created.ended
