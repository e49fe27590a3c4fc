"""The system under a fault: service processes, a worker, Redis, Postgres, and proxies between.

Only starts and stops them; the faults are in `*_faults.py`.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from enum import Enum
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import pytest

from service.operate.embedded import PostgresServer, RedisServer
from tests.faults.machine import SteppingClock, mount_small_disk, unmount_small_disk
from tests.support.paced_assistant import PacedAssistant
from tests.support.processes import (
    ServiceProcess,
    migrate,
    postgres_folder,
    service_environment,
)
from tests.support.redis_topology import ReplicatedRedis
from tests.support.tcp_proxy import TcpProxy
from tests.support.workers import WorkerProcess

# Short times keep the tests short; the faults depend on the order of events, not on durations.
FAST_SETTINGS = {
    "SEQSTREAM_HEARTBEAT_SECONDS": "1",
    "SEQSTREAM_RETRY_MS": "300",
    "SEQSTREAM_LOG_LEVEL": "info",
    "SEQSTREAM_BUILD_LEASE_SECONDS": "2",
    "SEQSTREAM_BUILD_COMMAND": "sh -c 'echo begun; sleep 0.3; echo done'",
    "SEQSTREAM_ANSWER_LEASE_SECONDS": "1.5",
}
_database_numbers = count(1)


class RedisKind(Enum):
    """How the service's Redis is set up."""

    SINGLE = "one server"
    REPLICATED = "a primary and a replica, reached through a proxy"
    SENTINEL = "a primary and a replica under Sentinel"


@dataclass(frozen=True)
class Plan:
    """What a fault needs of its world.

    `proxied`: services, Redis and Postgres are reached through proxies (Redis under Sentinel is
    not). `own_postgres`: a Postgres of its own that the fault may stop, with `postgres_settings`;
    otherwise the shared one. `postgres_disk_mib` puts it on a disk of this size, which takes root.
    `own_role`: the service's role is not a superuser; it has the database's name.
    `stepping_clock`: the services and Redis have a wall clock that a fault can step.
    `first_service`: settings of the first process alone. The `worker` connects as the services do.
    """

    services: int = 2
    worker: bool = True
    redis: RedisKind = RedisKind.SINGLE
    redis_arguments: tuple[str, ...] = ()
    proxied: bool = False
    own_postgres: bool = False
    postgres_settings: Mapping[str, str] = field(default_factory=dict)
    postgres_disk_mib: int | None = None
    own_role: bool = False
    stepping_clock: bool = False
    settings: Mapping[str, str] = field(default_factory=dict)
    first_service: Mapping[str, str] = field(default_factory=dict)


class World:
    """Everything that runs for one fault; `async with` starts it and ends it.

    Only a plan with `own_postgres` needs no `shared` one.
    """

    def __init__(
        self, plan: Plan, folder: Path, shared: SharedPostgres | None, *, seed: int
    ) -> None:
        self.plan = plan
        self.folder = folder
        self.services: list[ServiceProcess] = []
        self.worker: WorkerProcess | None = None
        self.assistant = PacedAssistant()
        self.topology: ReplicatedRedis | None = None
        self.redis_proxy: TcpProxy | None = None
        self.postgres_proxy: TcpProxy | None = None
        self.client_proxies: list[TcpProxy] = []
        self.small_disk: Path | None = None
        self.clock: SteppingClock | None = None
        self.database = f"fault_{next(_database_numbers)}"
        self._shared = shared
        self._seed = seed
        self._stack = AsyncExitStack()
        self._redis: RedisServer | None = None
        self._postgres: PostgresServer | None = None

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            if self.plan.stepping_clock:
                self.clock = SteppingClock(self.folder)
            database_url = await self._start_postgres(stack)
            redis_url = await self._start_redis(stack)
            await stack.enter_async_context(self.assistant)
            await self._start_services(stack, database_url, redis_url)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._stack.aclose()

    @property
    def redis(self) -> RedisServer:
        """The Redis server that the services began with."""
        assert self._redis is not None
        return self._redis

    @property
    def postgres(self) -> PostgresServer:
        """The Postgres server; only a plan with `own_postgres` may stop it."""
        assert self._postgres is not None
        return self._postgres

    @property
    def client_urls(self) -> list[str]:
        """Base URLs for writers and clients, one a service process."""
        if self.client_proxies:
            return [f"http://127.0.0.1:{proxy.port}" for proxy in self.client_proxies]
        return [service.url for service in self.services]

    async def psql(self, command: str) -> str:
        """Run one SQL command in the service's database, past any proxy."""
        return await asyncio.to_thread(self.postgres.psql, command, database=self.database)

    async def _start_postgres(self, stack: AsyncExitStack) -> str:
        if self.plan.own_postgres:
            folder = stack.enter_context(postgres_folder())
            settings = dict(self.plan.postgres_settings)
            if self.plan.postgres_disk_mib is not None:
                folder = self.small_disk = folder / "disk"
                mount_small_disk(folder, size_mib=self.plan.postgres_disk_mib)
                stack.callback(unmount_small_disk, folder)
                settings |= {"min_wal_size": "32MB", "max_wal_size": "48MB"}
            server = PostgresServer(folder / "postgres", fsync=False, settings=settings)
            await asyncio.to_thread(server.start)
            stack.push_async_callback(asyncio.to_thread, server.stop)
            await asyncio.to_thread(server.create_database, self.database)
            await asyncio.to_thread(migrate, server.database_url(self.database))
        else:
            assert self._shared is not None
            server = self._shared.server
            await asyncio.to_thread(
                server.create_database, self.database, template=self._shared.template
            )
            stack.push_async_callback(self._drop_database)
        self._postgres = server
        url = server.database_url(self.database)
        if self.plan.proxied:
            proxy = TcpProxy(server.port, seed=self._seed)
            self.postgres_proxy = await stack.enter_async_context(proxy)
            url = server.database_url(self.database, port=proxy.port)
        return await self._as_own_role(url) if self.plan.own_role else url

    async def _as_own_role(self, url: str) -> str:
        """Create a role that may only use the tables; return the URL with it."""
        password = secrets.token_hex(16)
        await self.psql(f"CREATE ROLE \"{self.database}\" LOGIN PASSWORD '{password}'")
        for kind in ("TABLES", "SEQUENCES"):
            await self.psql(f'GRANT ALL ON ALL {kind} IN SCHEMA public TO "{self.database}"')
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
        return parts._replace(netloc=f"{self.database}:{password}@{host}").geturl()

    async def _drop_database(self) -> None:
        assert self._shared is not None
        command = f'DROP DATABASE "{self.database}" WITH (FORCE)'
        await asyncio.to_thread(self._shared.server.psql, command)
        command = f'DROP ROLE IF EXISTS "{self.database}"'
        await asyncio.to_thread(self._shared.server.psql, command)

    async def _start_redis(self, stack: AsyncExitStack) -> str:
        if self.plan.redis is RedisKind.SINGLE:
            server = RedisServer(self.folder / "redis", arguments=list(self.plan.redis_arguments))
            with self._stepping_environment():
                await asyncio.to_thread(server.start)
            stack.push_async_callback(asyncio.to_thread, server.stop)
        else:
            sentinel = self.plan.redis is RedisKind.SENTINEL
            topology = ReplicatedRedis(self.folder, sentinel=sentinel)
            self.topology = await stack.enter_async_context(topology)
            server = topology.primary
            if sentinel:
                self._redis = server
                return topology.url
        self._redis = server
        if not self.plan.proxied and self.topology is None:
            return server.url
        proxy = TcpProxy(server.port, seed=self._seed + 1)
        self.redis_proxy = await stack.enter_async_context(proxy)
        return server.url_at(proxy.port)

    @contextmanager
    def _stepping_environment(self) -> Iterator[None]:
        # An embedded server inherits the environment of this process.
        if self.clock is None:
            yield
            return
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self.clock.environment.items():
                patch.setenv(name, value)
            yield

    async def _start_services(
        self, stack: AsyncExitStack, database_url: str, redis_url: str
    ) -> None:
        assistant = {
            "SEQSTREAM_ASSISTANT_URL": self.assistant.url,
            "SEQSTREAM_ASSISTANT_MODEL": "scripted",
        }
        for number in range(self.plan.services):
            settings = {**FAST_SETTINGS, **assistant, **self.plan.settings}
            if number == 0:
                settings |= self.plan.first_service
            if self.clock is not None:
                settings |= self.clock.environment
            service = ServiceProcess(
                f"service-{number + 1}",
                self.folder,
                service_environment(database_url, redis_url, settings),
            )
            service.spawn()
            stack.push_async_callback(service.stop)
            self.services.append(service)
        if self.plan.worker:
            self._start_worker(stack, database_url, redis_url)
        for service in self.services:
            await service.wait_ready()
            if self.plan.proxied:
                proxy = TcpProxy(service.port, seed=self._seed + 2 + len(self.client_proxies))
                self.client_proxies.append(await stack.enter_async_context(proxy))

    def _start_worker(self, stack: AsyncExitStack, database_url: str, redis_url: str) -> None:
        settings = {**FAST_SETTINGS, **self.plan.settings}
        if self.clock is not None:
            settings |= self.clock.environment
        worker = WorkerProcess(
            "worker", self.folder, service_environment(database_url, redis_url, settings)
        )
        worker.spawn()
        stack.push_async_callback(worker.stop)
        self.worker = worker


@dataclass(frozen=True)
class SharedPostgres:
    """A Postgres that many worlds share; each creates its own database from `template`."""

    server: PostgresServer
    template: str
