"""seqstream itself: one service process over its own Postgres (fsync on) and Redis."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import jwt

from bench.harness import counters
from bench.harness.child import Child
from bench.harness.http11 import CHANNEL, NUMBER, TEXT, PostTemplate, Signer
from bench.harness.messages import Go, PosterPlan, PosterResult, Started, StreamGroup
from bench.harness.servers import (
    HttpProcess,
    ServerError,
    Stores,
    new_secret,
    service_env,
    service_process,
)
from bench.peers.base import System

USER = "bench"
_DAY_S = 86_400
_PREPARE_TIMEOUT_S = 120.0


class Seqstream(System):
    """The service under test. Readers send tokens; posts are signed requests."""

    name: ClassVar[str] = "seqstream"
    strict: ClassVar[bool] = True

    def __init__(
        self,
        folder: Path,
        *,
        env: Mapping[str, str] | None = None,
        workers: int = 1,
    ) -> None:
        super().__init__(folder)
        self.stores = Stores(folder)
        self._env = dict(env or {})
        self._workers = workers
        self._hmac_secret = new_secret()
        self._token_secret = new_secret()
        self._process: HttpProcess | None = None

    async def start(self) -> None:
        await self.stores.start()
        await self.start_service()

    async def start_service(self) -> None:
        """Start a service process; Postgres and Redis must already run."""
        env = service_env(
            self.stores.database_url, self.stores.redis.url, self._hmac_secret, self._token_secret
        )
        self._process = service_process(self.folder, {**env, **self._env}, workers=self._workers)
        await self._process.start()

    async def stop_service(self) -> None:
        """Stop the service process; Postgres and Redis keep running."""
        if self._process is not None:
            await self._process.stop()

    async def stop(self) -> None:
        await self.stop_service()
        await self.stores.stop()

    @property
    def port(self) -> int:
        if self._process is None:
            raise ServerError("seqstream is not running")
        return self._process.port

    @property
    def pids(self) -> dict[str, int]:
        service = {"service": self._process.pid} if self._process is not None else {}
        redis, postgres = self.stores.redis.pid, self.stores.postgres.pid
        return {**service, "redis": redis, "postgres": postgres}

    def post_template(self) -> PostTemplate:
        # With a client_msg_id, as browsers send one, so that duplicate detection is measured too.
        return PostTemplate(
            path=f"/v1/projects/{CHANNEL}/chat/messages",
            body=f'{{"message":"{TEXT}","client_msg_id":"{CHANNEL}-{NUMBER}"}}',
            signer=Signer(USER, self._hmac_secret),
        )

    def stream(self, channel: str, connections: int, *, cursor: int | None = None) -> StreamGroup:
        claims = {"sub": USER, "aud": "seqstream", "exp": int(time.time()) + _DAY_S}
        token = jwt.encode(claims, self._token_secret, algorithm="HS256")
        headers = [("Authorization", f"Bearer {token}")]
        if cursor is not None:
            headers.append(("Last-Event-ID", str(cursor)))
        return StreamGroup(
            channel, connections, f"/v1/projects/{channel}/chat/stream", tuple(headers)
        )

    async def prepare(self, channels: list[str]) -> None:
        template = PostTemplate(
            path="/v1/projects",
            body=f'{{"id":"{CHANNEL}","name":"bench"}}',
            signer=Signer(USER, self._hmac_secret),
        )
        plan = PosterPlan(
            host="127.0.0.1", port=self.port, template=template, channels=tuple(channels),
            text_bytes=100, rate=0, count=len(channels), duration_s=_PREPARE_TIMEOUT_S,
            concurrency=min(len(channels), 16), samples_path=str(self.folder / "prepare.samples"),
        )  # fmt: skip
        async with Child("bench.harness.poster") as poster:
            await poster.send(plan)
            await poster.receive(Started, _PREPARE_TIMEOUT_S)
            await poster.send(Go())
            result = await poster.receive(PosterResult, _PREPARE_TIMEOUT_S + 30)
        if result.posted != len(channels):
            raise ServerError(f"creating projects failed: {result.errors}")

    async def counters(self) -> dict[str, int]:
        calls = await counters.redis_calls(self.stores.redis.url)
        statements = await counters.statements(self.stores.database_url)
        return {
            **{f"redis {name}": count for name, count in calls.items()},
            **{f"postgres {text}": count for text, count in statements.items()},
        }
