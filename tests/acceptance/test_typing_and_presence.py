"""PROTOCOL.md §4 and §6: typing and presence, told once, with real processes."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import msgspec
import redis

from service.embedded import RedisServer
from streams import keys
from tests.conftest import StartService
from tests.support.api import Api
from tests.support.processes import ServiceProcess, service_environment
from tests.support.signing import token
from tests.support.sse_client import SseClient
from tests.support.waiting import wait_until
from tests.support.workers import WorkerProcess


def _client(service: ServiceProcess, user: str, *more: ServiceProcess) -> SseClient:
    urls = [each.url for each in (service, *more)]
    return SseClient(f"client of {user}", urls, "p", token(user), from_seq=None)


async def _typing(api: Api, typing: bool) -> None:
    path = "/v1/projects/p/chat/typing"
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
    response = await api.request("GET", "/v1/projects/p/presence")
    return [each["userId"] for each in response.json()["users"]]


async def test_typing_starts_once_and_ends_once(
    start_service: StartService, redis_url: str
) -> None:
    """typing.start once however often it is renewed, typing.stop once; no id, not in the window."""
    service = await start_service()
    async with Api(service.url, "alice") as api, Api(service.url, "bob") as bob:
        await api.create_project("p")
        await api.add_member("p", "bob")
        async with _client(service, "alice") as client:
            await client.wait_live()
            for _ in range(3):
                await _typing(bob, True)
            await _typing(bob, False)
            await _typing(bob, False)
            await api.post("p", "after it")
            await client.wait_seq(1)
            await client.wait_until(lambda c: len(_typed(c, "bob")) == 2, timeout_s=5)
            assert _typed(client, "bob") == ["typing.start", "typing.stop"]
            assert {e.event_id for e in client.events("typing.start", "typing.stop")} <= {"0", "1"}
    with redis.Redis.from_url(redis_url) as other:
        assert [fields[b"event"] for _, fields in other.xrange(keys.stream("p"))] == [
            b"message.new"
        ]


async def test_typing_ends_by_itself_though_its_process_died(start_service: StartService) -> None:
    """§4: it ends by itself after 6 s, also when the process that took the POST is gone; once."""
    first = await start_service()
    second = await start_service()
    third = await start_service()
    async with Api(first.url, "alice") as api:
        await api.create_project("p")
        async with _client(second, "alice") as one, _client(third, "alice") as other:
            await one.wait_live()
            await other.wait_live()
            await _typing(api, True)
            await one.wait_until(lambda c: _typed(c, "alice") != [], timeout_s=5)
            await first.kill()
            for client in (one, other):
                await client.wait_until(lambda c: len(_typed(c, "alice")) == 2, timeout_s=12)
            await _settled(second, one, other)
            assert _typed(one, "alice") == _typed(other, "alice") == ["typing.start", "typing.stop"]


async def test_a_flood_of_typing_is_limited_and_delays_nothing(
    start_service: StartService,
) -> None:
    """A user may begin to type about once a second; messages pass by."""
    service = await start_service()
    async with Api(service.url, "alice") as api:
        await api.create_project("p")
        async with _client(service, "alice") as client:
            await client.wait_live()
            floods = [_typing(api, n % 2 == 0) for n in range(300)]
            posts = [api.post("p", f"m{n}") for n in range(50)]
            await asyncio.gather(*floods, *posts)
            await client.wait_seq(50)
            # The bound: one start a second, however long this machine took over it.
            took_s = client.events()[-1].at_s - client.events()[0].at_s
            assert len(_typed(client, "alice")) <= 2 * (took_s + 2)


async def test_presence_counts_a_users_connections_as_one(start_service: StartService) -> None:
    """online once on the first, offline once after the last, over processes and tabs."""
    first = await start_service()
    second = await start_service()
    async with Api(first.url, "alice") as api:
        await api.create_project("p")
        await api.add_member("p", "bob")
        async with _client(first, "alice") as watching:
            await watching.wait_live()
            async with _client(first, "bob") as tab, _client(second, "bob") as other:
                await tab.wait_live()
                await other.wait_live()
                await watching.wait_until(lambda c: _present(c, "bob") == ["online"], timeout_s=5)
                await wait_until(
                    lambda: _holds(api, ["alice", "bob"]), what="both users in GET /presence"
                )
            # One that is back within the grace was never away.
            async with _client(second, "bob") as back:
                await back.wait_live()
            await watching.wait_until(
                lambda c: _present(c, "bob") == ["online", "offline"], timeout_s=10
            )
            assert await _online(api) == ["alice"]


async def test_the_users_of_a_killed_process_are_forgotten(
    database_url: str, redis_url: str, tmp_path: Path, start_service: StartService
) -> None:
    """Issue: forgets the users of a process that died; told once, by whoever is left."""
    service = await start_service()
    program = (
        "import asyncio\n"
        "from streams import EventLog, EventLogConfig\n"
        "async def main():\n"
        f"    async with EventLog.open({database_url!r}, {redis_url!r},\n"
        "            config=EventLogConfig(presence_alive_s=0.9)) as log:\n"
        "        log.presence.opened('p', 'bob')\n"
        "        await asyncio.sleep(600)\n"
        "asyncio.run(main())\n"
    )
    async with Api(service.url, "alice") as api:
        await api.create_project("p")
        async with _client(service, "alice") as watching:
            await watching.wait_live()
            environment = service_environment(database_url, redis_url)
            other = WorkerProcess("other", tmp_path, environment, sys.executable, "-c", program)
            async with other:
                await watching.wait_until(lambda c: _present(c, "bob") == ["online"], timeout_s=10)
                await other.kill()
            await watching.wait_until(
                lambda c: _present(c, "bob") == ["online", "offline"], timeout_s=15
            )
            assert await _online(api) == ["alice"]


async def test_without_redis_typing_is_taken_and_nothing_happens(
    database_url: str, tmp_path: Path
) -> None:
    """DESIGN: typing and presence pause; when Redis is back who is there is online again."""
    with RedisServer(tmp_path / "redis") as own_redis:
        environment = service_environment(database_url, own_redis.url)
        async with ServiceProcess("service", tmp_path, environment) as service:
            async with Api(service.url, "alice") as api:
                await api.create_project("p")
                async with _client(service, "alice") as client:
                    await client.wait_live()
                    await client.wait_until(lambda c: _present(c, "alice") != [], timeout_s=5)
                    own_redis.kill()
                    await _typing(api, True)
                    assert await _online(api) == ["alice"]
                    own_redis.start()
                    with redis.Redis.from_url(own_redis.url) as other:
                        await wait_until(
                            lambda: other.hlen(keys.presence("p")) == 1, what="presence is back"
                        )
                    assert await _online(api) == ["alice"]


async def _holds(api: Api, users: list[str]) -> bool:
    return sorted(await _online(api)) == users


async def _settled(service: ServiceProcess, *clients: SseClient) -> None:
    """Wait until all clients saw something that was sent after all that is looked at."""
    async with Api(service.url, "alice") as api:
        seq = (await api.post("p", "settled")).seq
    for client in clients:
        await client.wait_seq(seq)
