"""A real nginx in front of a service, in a common configuration: it forwards `Upgrade`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import httpx

from service.operate.embedded import free_port
from tests.support.waiting import wait_until

PATH = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
_STOP_TIMEOUT_S = 10

# One kept-alive connection to the service: bytes left on it would reach the next client.
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
  upstream service {{ server 127.0.0.1:{upstream}; keepalive 1; }}
  map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://service;
      proxy_http_version 1.1;
      proxy_buffering off;
      proxy_set_header Host $http_host;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection $connection_upgrade;
    }}
  }}
}}
"""


@contextlib.asynccontextmanager
async def nginx_in_front_of(upstream_port: int, folder: Path) -> AsyncIterator[int]:
    """Run nginx in front of a loopback port; yields the port that it listens on."""
    assert PATH is not None
    port = free_port()
    config = folder / "nginx.conf"
    user = "user root;" if os.geteuid() == 0 else ""
    config.write_text(_CONFIG.format(folder=folder, upstream=upstream_port, port=port, user=user))
    command = [PATH, "-p", str(folder), "-c", str(config), "-e", str(folder / "error.log")]
    with (folder / "nginx.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        async with httpx.AsyncClient(trust_env=False) as http:

            async def ready() -> bool:
                assert process.returncode is None, (folder / "nginx.log").read_text()
                try:
                    answer = await http.get(f"http://127.0.0.1:{port}/health/live")
                except httpx.TransportError:
                    return False
                return answer.status_code == 200

            await wait_until(ready, what="nginx ready")
        yield port
    finally:
        process.terminate()
        async with asyncio.timeout(_STOP_TIMEOUT_S):
            await process.wait()
