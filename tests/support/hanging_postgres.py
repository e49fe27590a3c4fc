"""A Postgres that hangs: connections stay open, new ones are accepted, and no query is answered."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator

import psutil  # type: ignore[import-untyped]

from service.operate.embedded import PostgresServer


@contextlib.contextmanager
def hanging(server: PostgresServer) -> Iterator[None]:
    """Stop the server and its backends with SIGSTOP inside the block; continue them at its end."""
    parent = psutil.Process(server.pid)
    stopped = [parent, *parent.children(recursive=True)]
    for each in stopped:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for each in stopped:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.send_signal(signal.SIGCONT)
