"""docs/protocol.md §4 and §6: typing and presence, told once, with real processes."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
import redis

from service.operate.embedded import RedisServer
from streams.window import keys
from tests.acceptance.conftest import Services
from tests.support.api import Api
from tests.support.processes import ServiceProcess, service_environment
from tests.support.signing import token
from tests.support.sse_client import SseClient
from tests.support.waiting import wait_until
from tests.support.workers import WorkerProcess


@contextlib.asynccontextmanager
async def _room(service: ServiceProcess) -> AsyncIterator[Api]:
    """A project of alice's, with bob in it; named by `_project`."""
    async with Api(service.url, "alice") as api:
        await api.create_project(_project())
        await api.add_member(_project(), "bob")
        yield api


def _project() -> str:
    """The project of the test that runs."""
    return f"room-{_tests}"


_tests = 0


@pytest.fixture(autouse=True)
def another_project() -> None:
    """Each test has a project of its own."""
    global _tests
    _tests += 1


def _client(service: ServiceProcess, user: str) -> SseClient:
    return SseClient(f"client of {user}", [service.url], _project(), token(user), from_seq=None)


async def _typing(api: Api, typing: bool) -> None:
    path = f"/v1/projects/{_project()}/chat/typing"
    response = await api.request("POST", path, {"typing": typing})
    assert response.status_code == 202


def _typed(client: SseClient, user: str) -> list[str]:
    return [
        event.name
        for event in client.events("typing.start", "typing.stop")
        if msgspec.json.decode(event.data)["userId"] == user
    ]


def _present(client: SseClient, user: str) -> list[str]:
    found = [msgspec.json.decode(event.data) for event in client.events("presence.changed")]
    return [each["content"]["status"] for each in found if each["userId"] == user]


async def _online(api: Api) -> list[str]:
    response = await api.request("GET", f"/v1/projects/{_project()}/presence")
    return [each["userId"] for each in response.json()["users"]]


async def test_typing_starts_once_and_ends_once(
    services: Services,
) -> None:
    """typing.start once however often it is renewed, typing.stop once; no id, not in the window."""
    service = services.a
    async with _room(service) as api, Api(service.url, "bob") as bob:
        async with _client(service, "alice") as client:
            await client.wait_live()
            for _ in range(3):
                await _typing(bob, True)
            await _typing(bob, False)
            await _typing(bob, False)
            await api.post(_project(), "after it")
            await client.wait_seq(1)
            await client.wait_until(lambda c: len(_typed(c, "bob")) == 2, timeout_s=30)
            assert _typed(client, "bob") == ["typing.start", "typing.stop"]
            assert {e.event_id for e in client.events("typing.start", "typing.stop")} <= {"0", "1"}
    with redis.Redis.from_url(services.redis.url) as other:
        assert [fields[b"event"] for _, fields in other.xrange(keys.stream(_project()))] == [
            b"message.new"
        ]


async def test_typing_ends_by_itself_though_its_process_died(
    services: Services, tmp_path: Path
) -> None:
    """§4: it ends by itself after 6 s, also when the process that took the POST is gone; once."""
    second, third = services.a, services.b
    first = ServiceProcess("dies", tmp_path, second.environment)
    async with first, _room(first) as api:
        async with _client(second, "alice") as one, _client(third, "alice") as other:
            await one.wait_live()
            await other.wait_live()
            await _typing(api, True)
            await one.wait_until(lambda c: _typed(c, "alice") != [], timeout_s=30)
            await first.kill()
            for client in (one, other):
                await client.wait_until(lambda c: len(_typed(c, "alice")) == 2, timeout_s=12)
            await _settled(second, one, other)
            assert _typed(one, "alice") == _typed(other, "alice") == ["typing.start", "typing.stop"]


async def test_a_flood_of_typing_is_limited_and_delays_nothing(
    services: Services,
) -> None:
    """A user may begin to type about once a second; messages pass by."""
    service = services.a
    async with _room(service) as api:
        async with _client(service, "alice") as client:
            await client.wait_live()
            floods = [_typing(api, n % 2 == 0) for n in range(300)]
            posts = [api.post(_project(), f"m{n}") for n in range(50)]
            await asyncio.gather(*floods, *posts)
            await client.wait_seq(50)
            # The bound: one start a second, however long this machine took over it.
            took_s = client.events()[-1].at_s - client.events()[0].at_s
            assert len(_typed(client, "alice")) <= 2 * (took_s + 2)


async def test_presence_counts_a_users_connections_as_one(services: Services) -> None:
    """online once on the first, offline once after the last, over processes and tabs."""
    first, second = services.a, services.b
    async with _room(first) as api:
        async with _client(first, "alice") as watching:
            await watching.wait_live()
            async with _client(second, "bob") as last:
                async with _client(first, "bob") as tab:
                    await tab.wait_live()
                    await last.wait_live()
                    await watching.wait_until(
                        lambda c: _present(c, "bob") == ["online"], timeout_s=30
                    )
                    await wait_until(
                        lambda: _holds(api, ["alice", "bob"]), what="both users in GET /presence"
                    )
                # One tab less, and the other process still has one: nobody left.
            await watching.wait_until(
                lambda c: _present(c, "bob") == ["online", "offline"], timeout_s=30
            )
            assert await _online(api) == ["alice"]


async def test_the_users_of_a_killed_process_are_forgotten(
    services: Services, tmp_path: Path
) -> None:
    """Forgets the users of a process that died; told once, by whoever is left."""
    service = services.a
    program = (
        "import asyncio\n"
        "from streams import EventLog, EventLogConfig\n"
        "async def main():\n"
        f"    async with EventLog.open({services.database_url!r}, {services.redis.url!r},\n"
        "            config=EventLogConfig(presence_alive_s=0.9)) as log:\n"
        f"        log.presence.opened('{_project()}', 'bob')\n"
        "        await asyncio.sleep(600)\n"
        "asyncio.run(main())\n"
    )
    async with _room(service) as api:
        async with _client(service, "alice") as watching:
            await watching.wait_live()
            environment = service.environment
            other = WorkerProcess("other", tmp_path, environment, sys.executable, "-c", program)
            async with other:
                await watching.wait_until(lambda c: _present(c, "bob") == ["online"], timeout_s=30)
                await other.kill()
            await watching.wait_until(
                lambda c: _present(c, "bob") == ["online", "offline"], timeout_s=15
            )
            assert await _online(api) == ["alice"]


async def test_a_deploy_announces_nobody_who_comes_back(services: Services, tmp_path: Path) -> None:
    """§10: offline comes above the spread of reconnects: only who does not return, and once."""
    stays = services.a
    environment = stays.environment | {"SEQSTREAM_PRESENCE_GRACE_SECONDS": "4"}
    async with (
        ServiceProcess("goes", tmp_path, environment) as goes,
        _room(stays) as api,
        contextlib.AsyncExitStack() as clients,
    ):
        users = [f"user-{number}" for number in range(25)]
        for user in users:
            await api.add_member(_project(), user)

        async def connect(user: str, *services: ServiceProcess) -> SseClient:
            urls = [service.url for service in services]
            client = SseClient(f"client of {user}", urls, _project(), token(user), from_seq=None)
            return await clients.enter_async_context(client)

        watching = await connect("alice", stays)
        moving = [await connect(user, goes, stays) for user in users]
        leaver = await connect("bob", goes)
        for client in (watching, *moving, leaver):
            await client.wait_live()
        everybody = [*users, "bob"]
        await watching.wait_until(
            lambda c: all(_present(c, user) == ["online"] for user in everybody), timeout_s=30
        )
        before = len(watching.events("presence.changed"))
        assert await goes.terminate() == 0
        await leaver.close()
        for client in moving:
            await client.wait_until(lambda c: len(c.ends) == 1 and c.live, timeout_s=30)
        await watching.wait_until(lambda c: "offline" in _present(c, "bob"), timeout_s=30)
        await _settled(stays, watching)
        after = watching.events("presence.changed")[before:]
        assert [msgspec.json.decode(event.data)["userId"] for event in after] == ["bob"]
        assert sorted(await _online(api)) == sorted(["alice", *users])


async def test_without_redis_typing_is_taken_and_nothing_happens(
    database_url: str, tmp_path: Path
) -> None:
    """Typing and presence pause; when Redis is back who is there is online again."""
    with RedisServer(tmp_path / "redis") as own_redis:
        environment = service_environment(database_url, own_redis.url)
        async with ServiceProcess("service", tmp_path, environment) as service:
            async with _room(service) as api:
                async with _client(service, "alice") as client:
                    await client.wait_live()
                    await client.wait_until(lambda c: _present(c, "alice") != [], timeout_s=30)
                    own_redis.kill()
                    await _typing(api, True)
                    assert await _online(api) == ["alice"]
                    own_redis.start()
                    with redis.Redis.from_url(own_redis.url) as other:
                        await wait_until(
                            lambda: other.hlen(keys.presence(_project())) == 1,
                            what="presence is back",
                        )
                    assert await _online(api) == ["alice"]


async def _holds(api: Api, users: list[str]) -> bool:
    return sorted(await _online(api)) == users


async def _settled(service: ServiceProcess, *clients: SseClient) -> None:
    """Wait until all clients saw something that was sent after all that is looked at."""
    async with Api(service.url, "alice") as api:
        seq = (await api.post(_project(), "settled")).seq
    for client in clients:
        await client.wait_seq(seq)
