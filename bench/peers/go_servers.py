"""Centrifugo and Mercure (Go), where their binaries are found.

The binaries are searched in bench/.cache/bin and on the PATH. Both are measured with their defaults
for server-sent events, without authentication of readers, and with in-memory stores.
"""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import ClassVar
from urllib.parse import quote

import jwt

from bench.harness.http11 import CHANNEL, TEXT, PostTemplate
from bench.harness.messages import StreamGroup
from bench.harness.servers import CACHE, HttpProcess, new_secret
from bench.peers.base import System
from service.operate.embedded import free_port

_HOUR_S = 3600


class GoServer(System):
    """A server that consists of one binary."""

    binary: ClassVar[str]
    source: ClassVar[str]

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._port = free_port()
        self._secret = new_secret()
        self._server: HttpProcess | None = None

    @classmethod
    def path(cls) -> str | None:
        """The path of the binary, or None."""
        return shutil.which(cls.binary, path=str(CACHE / "bin")) or shutil.which(cls.binary)

    @classmethod
    def missing(cls) -> str | None:
        if cls.path() is None:
            return f"no binary {cls.binary} (GOBIN=$PWD/bench/.cache/bin go install {cls.source})"
        return None

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop()

    @property
    def port(self) -> int:
        return self._port

    @property
    def pids(self) -> dict[str, int]:
        return {"service": self._server.pid} if self._server is not None else {}


class Centrifugo(GoServer):
    """Centrifugo with unidirectional SSE and its memory engine, with a history of 200."""

    name: ClassVar[str] = "Centrifugo"
    binary: ClassVar[str] = "centrifugo"
    source: ClassVar[str] = "github.com/centrifugal/centrifugo/v6@latest"

    async def start(self) -> None:
        config = self.folder / "centrifugo.json"
        config.write_text(
            json.dumps(
                {
                    "http_server": {"address": "127.0.0.1", "port": str(self._port)},
                    "http_api": {"key": self._secret},
                    "health": {"enabled": True},
                    "uni_sse": {"enabled": True},
                    "client": {"insecure": True},
                    "channel": {
                        "without_namespace": {"history_size": 200, "history_ttl": "1h"},
                    },
                }
            )
        )
        self._server = HttpProcess(
            self.name, [str(self.path()), "--config", str(config)], self.folder / "server.log",
            port=self._port, ready_path="/health",
        )  # fmt: skip
        await self._server.start()

    def post_template(self) -> PostTemplate:
        return PostTemplate(
            path="/api/publish",
            body=json.dumps({"channel": CHANNEL, "data": {"text": TEXT}}),
            headers=(("X-API-Key", self._secret),),
        )

    def stream(self, channel: str, connections: int) -> StreamGroup:
        connect = quote(json.dumps({"subs": {channel: {}}}))
        return StreamGroup(channel, connections, f"/connection/uni_sse?cf_connect={connect}")


class Mercure(GoServer):
    """Mercure with anonymous subscribers and its default transport."""

    name: ClassVar[str] = "Mercure"
    binary: ClassVar[str] = "mercure"
    source: ClassVar[str] = "github.com/dunglas/mercure/cmd/mercure@latest"

    async def start(self) -> None:
        self._server = HttpProcess(
            self.name, [str(self.path())], self.folder / "server.log",
            port=self._port, ready_path="/healthz",
            env={
                "ADDR": f"127.0.0.1:{self._port}",
                "JWT_KEY": self._secret,
                "ALLOW_ANONYMOUS": "1",
                "TRANSPORT_URL": f"bolt://{self.folder}/updates.db?size=200",
            },
        )  # fmt: skip
        await self._server.start()

    def post_template(self) -> PostTemplate:
        claims = {"mercure": {"publish": ["*"]}, "exp": int(time.time()) + _HOUR_S}
        token = jwt.encode(claims, self._secret, algorithm="HS256")
        return PostTemplate(
            path="/.well-known/mercure",
            body=f"topic={CHANNEL}&data={TEXT}",
            headers=(("Authorization", f"Bearer {token}"),),
            content_type="application/x-www-form-urlencoded",
        )

    def stream(self, channel: str, connections: int) -> StreamGroup:
        return StreamGroup(channel, connections, f"/.well-known/mercure?topic={quote(channel)}")
