"""docs/protocol.md §4 and §6: typing and presence are announced once, by real processes."""

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
async def _alices_project(service: ServiceProcess) -> AsyncIterator[Api]:
    """A project of alice with the member bob; its id is `_project()`."""
    async with Api(service.url, "alice") as api:
        await api.create_project(_project())
        await api.add_member(_project(), "bob")
        yield api


def _project() -> str:
    """Return the project id of the running test."""
    return f"presence-{_tests}"


_tests = 0


@pytest.fixture(autouse=True)
def another_project() -> None:
    """Give each test its own project id."""
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


async def test_typing_start_and_stop_are_announced_once(
    services: Services,
) -> None:
    """§4: each is sent once, however often typing is renewed; no SSE id, not in the window."""
    service = services.a
    async with _alices_project(service) as api, Api(service.url, "bob") as bob:
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


async def test_typing_times_out_though_its_process_died(services: Services, tmp_path: Path) -> None:
    """§4: it ends once after 6 s, also when the process that handled the POST was killed."""
    second, third = services.a, services.b
    first = ServiceProcess("dies", tmp_path, second.environment)
    async with first, _alices_project(first) as api:
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


async def test_a_flood_of_typing_is_limited_and_delays_no_message(
    services: Services,
) -> None:
    """A user may start typing about once per second; messages are delivered meanwhile."""
    service = services.a
    async with _alices_project(service) as api:
        async with _client(service, "alice") as client:
            await client.wait_live()
            floods = [_typing(api, n % 2 == 0) for n in range(300)]
            posts = [api.post(_project(), f"m{n}") for n in range(50)]
            await asyncio.gather(*floods, *posts)
            await client.wait_seq(50)
            # At most one start and one stop per second of the time that the flood took here.
            took_s = client.events()[-1].at_s - client.events()[0].at_s
            assert len(_typed(client, "alice")) <= 2 * (took_s + 2)


async def test_presence_counts_a_users_connections_as_one(services: Services) -> None:
    """§6: `online` at the first connection, `offline` after the last, across processes and tabs."""
    first, second = services.a, services.b
    async with _alices_project(first) as api:
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
                # One tab closed; bob still has a stream on the other process, so he stays online.
            await watching.wait_until(
                lambda c: _present(c, "bob") == ["online", "offline"], timeout_s=30
            )
            assert await _online(api) == ["alice"]


async def test_users_of_a_killed_process_go_offline(services: Services, tmp_path: Path) -> None:
    """§6: a running process removes the users of the killed one and announces each once."""
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
    async with _alices_project(service) as api:
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


async def test_a_deploy_announces_only_users_who_do_not_reconnect(
    services: Services, tmp_path: Path
) -> None:
    """§6: the grace period exceeds the spread of reconnects; each user is announced once."""
    remaining = services.a
    environment = remaining.environment | {"SEQSTREAM_PRESENCE_GRACE_SECONDS": "4"}
    async with (
        ServiceProcess("stopped", tmp_path, environment) as stopped,
        _alices_project(remaining) as api,
        contextlib.AsyncExitStack() as clients,
    ):
        users = [f"user-{number}" for number in range(25)]
        for user in users:
            await api.add_member(_project(), user)

        async def connect(user: str, *services: ServiceProcess) -> SseClient:
            urls = [service.url for service in services]
            client = SseClient(f"client of {user}", urls, _project(), token(user), from_seq=None)
            return await clients.enter_async_context(client)

        watching = await connect("alice", remaining)
        moving = [await connect(user, stopped, remaining) for user in users]
        leaver = await connect("bob", stopped)
        for client in (watching, *moving, leaver):
            await client.wait_live()
        everybody = [*users, "bob"]
        await watching.wait_until(
            lambda c: all(_present(c, user) == ["online"] for user in everybody), timeout_s=30
        )
        before = len(watching.events("presence.changed"))
        assert await stopped.terminate() == 0
        await leaver.close()
        for client in moving:
            await client.wait_until(lambda c: len(c.ends) == 1 and c.live, timeout_s=30)
        await watching.wait_until(lambda c: "offline" in _present(c, "bob"), timeout_s=30)
        await _settled(remaining, watching)
        after = watching.events("presence.changed")[before:]
        assert [msgspec.json.decode(event.data)["userId"] for event in after] == ["bob"]
        assert sorted(await _online(api)) == sorted(["alice", *users])


async def test_without_redis_typing_is_accepted_and_presence_recovers_later(
    database_url: str, tmp_path: Path
) -> None:
    """Typing and presence pause; after Redis restarts, connected users are online again."""
    with RedisServer(tmp_path / "redis") as own_redis:
        environment = service_environment(database_url, own_redis.url)
        async with ServiceProcess("service", tmp_path, environment) as service:
            async with _alices_project(service) as api:
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
                            what="presence in Redis",
                        )
                    assert await _online(api) == ["alice"]


async def _holds(api: Api, users: list[str]) -> bool:
    return sorted(await _online(api)) == users


async def _settled(service: ServiceProcess, *clients: SseClient) -> None:
    """Post a message and wait until all clients have it, and so all events before it."""
    async with Api(service.url, "alice") as api:
        seq = (await api.post(_project(), "settled")).seq
    for client in clients:
        await client.wait_seq(seq)
