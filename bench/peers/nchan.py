"""nginx with nchan (C): a channel server in the web server, in memory or backed by Redis."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import ClassVar

from bench.harness import counters
from bench.harness.http11 import CHANNEL, TEXT, PostTemplate
from bench.harness.messages import StreamGroup
from bench.harness.servers import HttpProcess
from bench.peers.base import System
from service.operate.embedded import RedisServer, free_port

_MODULES = (
    Path("/usr/lib/nginx/modules/ngx_nchan_module.so"),
    Path("/usr/share/nginx/modules/ngx_nchan_module.so"),
    Path("/usr/lib64/nginx/modules/ngx_nchan_module.so"),
)

_CONFIG = """\
load_module {module};
{user}
daemon off;
worker_processes 1;
worker_rlimit_nofile {files};
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
events {{ worker_connections {files}; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  keepalive_requests 100000000;
  keepalive_timeout 300s;
  tcp_nodelay on;
  nchan_shared_memory_size 256M;
  {upstream}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location = /ready {{ return 200; }}
    location ~ ^/pub/(.+)$ {{
      nchan_publisher;
      nchan_channel_id $1;
      nchan_message_buffer_length 200;
      nchan_message_timeout 1h;
      {redis}
    }}
    location ~ ^/sub/(.+)$ {{
      nchan_subscriber eventsource;
      nchan_channel_id $1;
      nchan_subscriber_first_message newest;
      nchan_eventsource_ping_interval 15;
      {redis}
    }}
  }}
}}
"""


class NchanMemory(System):
    """nchan with its messages in shared memory."""

    name: ClassVar[str] = "nchan (memory)"
    _with_redis: ClassVar[bool] = False

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._port = free_port()
        self._redis = RedisServer(folder / "redis") if self._with_redis else None
        self._nginx: HttpProcess | None = None

    @classmethod
    def missing(cls) -> str | None:
        if _nginx_path() is None:
            return "nginx is not installed (Debian: apt-get install nginx libnginx-mod-nchan)"
        if _module_path() is None:
            return "nginx has no nchan module (Debian: apt-get install libnginx-mod-nchan)"
        return None

    async def start(self) -> None:
        if self._redis is not None:
            self._redis.start()
        config = self.folder / "nginx.conf"
        config.write_text(self._config())
        command = [str(_nginx_path()), "-p", str(self.folder), "-c", str(config)]
        command += ["-e", str(self.folder / "error.log")]
        self._nginx = HttpProcess(
            self.name, command, self.folder / "nginx.log", port=self._port, ready_path="/ready"
        )
        await self._nginx.start()

    async def stop(self) -> None:
        if self._nginx is not None:
            await self._nginx.stop()
        if self._redis is not None:
            self._redis.stop()

    @property
    def port(self) -> int:
        return self._port

    @property
    def pids(self) -> dict[str, int]:
        pids = {"service": self._nginx.pid} if self._nginx is not None else {}
        if self._redis is not None:
            pids["redis"] = self._redis.pid
        return pids

    def post_template(self) -> PostTemplate:
        return PostTemplate(path=f"/pub/{CHANNEL}", body=TEXT, content_type="text/plain")

    def stream(self, channel: str, connections: int) -> StreamGroup:
        return StreamGroup(channel, connections, f"/sub/{channel}")

    async def counters(self) -> dict[str, int]:
        if self._redis is None:
            return {}
        calls = await counters.redis_calls(self._redis.url)
        return {f"redis {name}": count for name, count in calls.items()}

    def _config(self) -> str:
        upstream = redis = ""
        if self._redis is not None:
            upstream = f"upstream store {{ nchan_redis_server {self._redis.url}; }}"
            redis = "nchan_redis_pass store;"
        return _CONFIG.format(
            module=_module_path(), folder=self.folder, port=self._port, files=19_000,
            user="user root;" if os.geteuid() == 0 else "", upstream=upstream, redis=redis,
        )  # fmt: skip


class NchanRedis(NchanMemory):
    """nchan with its messages in Redis."""

    name: ClassVar[str] = "nchan (Redis)"
    _with_redis: ClassVar[bool] = True


def _nginx_path() -> str | None:
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")


def _module_path() -> Path | None:
    return next((path for path in _MODULES if path.exists()), None)
