"""nginx in front of the service, with the lines that `docs/clients.md` recommends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path

from service.operate.embedded import free_port
from tests.support.nginx import PATH
from tests.support.processes import ROOT
from tests.support.waiting import wait_until

DOCUMENT = ROOT / "docs" / "clients.md"
_STOP_TIMEOUT_S = 10.0
_STREAMS = "/stream"
_CONFIG = """
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
{user}
events {{ worker_connections 64; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
{lines}
}}
"""


def available() -> bool:
    """Tell whether there is an nginx on this machine."""
    return PATH is not None


def documented_lines() -> str:
    """Return the block of nginx lines in the document."""
    found = re.search(r"^```nginx\n(.*?)^```$", DOCUMENT.read_text(encoding="utf-8"), re.M | re.S)
    assert found is not None, f"{DOCUMENT.name} has no block of nginx lines"
    return found[1]


@contextlib.asynccontextmanager
async def nginx_front(upstream_port: int, path: str, folder: Path) -> AsyncIterator[int]:
    """Run nginx in front of a loopback port; yields the port that it listens on.

    `path` is the stream's, for the block of lines that is for streams.
    """
    assert PATH is not None
    port = free_port()
    # The document has the ports that a reader would have.
    lines = documented_lines().replace("listen 80;", f"listen 127.0.0.1:{port};")
    lines = lines.replace("127.0.0.1:8000", f"127.0.0.1:{upstream_port}")
    if not path.endswith(_STREAMS):
        lines = lines.replace(f"{_STREAMS}$", re.escape(path))
    user = "user root;" if os.geteuid() == 0 else ""
    config = folder / "nginx.conf"
    config.write_text(_CONFIG.format(folder=folder, user=user, lines=lines))
    command = [PATH, "-p", str(folder), "-c", str(config), "-e", str(folder / "error.log")]
    with (folder / "nginx.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log
        )

    async def ready() -> bool:
        assert process.returncode is None, (folder / "nginx.log").read_text()
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return False
        writer.close()
        return True

    try:
        await wait_until(ready, what="nginx ready")
        yield port
    finally:
        if process.returncode is None:
            process.terminate()
        async with asyncio.timeout(_STOP_TIMEOUT_S):
            await process.wait()
