"""Peers that are a Python web application: one process and one Redis."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import ClassVar

from bench.harness import counters
from bench.harness.http11 import CHANNEL, TEXT, PostTemplate
from bench.harness.messages import StreamGroup
from bench.harness.servers import HttpProcess
from bench.peers.base import System
from service.operate.embedded import RedisServer, free_port


class PythonApp(System):
    """An ASGI application under uvicorn (uvloop, httptools, no access log) with its own Redis."""

    application: ClassVar[str]
    requirement: ClassVar[str]

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        (folder / "redis").mkdir(exist_ok=True)
        self._redis = RedisServer(folder / "redis")
        self._port = free_port()
        self._server: HttpProcess | None = None

    @classmethod
    def missing(cls) -> str | None:
        if importlib.util.find_spec(cls.requirement) is None:
            return (
                f"the package {cls.requirement} is not installed"
                " (pip install -r bench/requirements.txt)"
            )
        return None

    async def start(self) -> None:
        self._redis.start()
        command = [sys.executable, "-m", "uvicorn", self.application, "--host", "127.0.0.1"]
        command += ["--port", str(self._port), "--loop", "uvloop", "--http", "httptools"]
        command += ["--no-access-log", "--log-level", "warning", "--backlog", "4096"]
        self._server = HttpProcess(
            self.name, command, self.folder / "app.log", port=self._port, ready_path="/ready",
            env={"PEER_REDIS_URL": self._redis.url},
        )  # fmt: skip
        await self._server.start()

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop()
        self._redis.stop()

    @property
    def port(self) -> int:
        return self._port

    @property
    def pids(self) -> dict[str, int]:
        service = {"service": self._server.pid} if self._server is not None else {}
        return {**service, "redis": self._redis.pid}

    def post_template(self) -> PostTemplate:
        return PostTemplate(path=f"/pub/{CHANNEL}", body=TEXT, content_type="text/plain")

    def stream(self, channel: str, connections: int) -> StreamGroup:
        return StreamGroup(channel, connections, f"/sub/{channel}")

    async def counters(self) -> dict[str, int]:
        calls = await counters.redis_calls(self._redis.url)
        return {f"redis {name}": count for name, count in calls.items()}


class LitestarChannels(PythonApp):
    """Litestar's channels plugin with its Redis stream backend and `ServerSentEvent`."""

    name: ClassVar[str] = "Litestar channels"
    application: ClassVar[str] = "bench.peers.litestar_channels_app:app"
    requirement: ClassVar[str] = "litestar"
    # At the full rate its delay grows without bound.
    rate_share: ClassVar[float] = 0.2


class SubscriberEach(PythonApp):
    """One Redis subscriber per connection, with sse-starlette: the most common first design."""

    name: ClassVar[str] = "subscriber each"
    application: ClassVar[str] = "bench.peers.subscriber_app:app"
    requirement: ClassVar[str] = "sse_starlette"
    rate_share: ClassVar[float] = 0.1
