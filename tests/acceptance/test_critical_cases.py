"""The four main cases of the service, over real HTTP, with real processes."""

from __future__ import annotations

import asyncio

import msgspec

from service.operate.embedded import RedisServer
from tests.acceptance.conftest import NewProject, Project, Services
from tests.support.checker import check
from tests.support.history import Acknowledgement, Post
from tests.support.processes import ServiceProcess, service_environment
from tests.support.sse_client import SseClient


async def test_the_sender_sees_its_own_message(services: Services, project: Project) -> None:
    """G4: the sender gets its own message, as all readers do, with seq and `client_msg_id`."""
    async with SseClient("s", [services.a.url], project.id, project.token, from_seq=None) as client:
        await client.wait_live()
        answer = await project.api.post(project.id, "hello", "mine-1")
        await client.wait_seq(1)
    (event,) = client.events("message.new")
    data = msgspec.json.decode(event.data)
    assert (event.event_id, data["seq"], data["client_msg_id"]) == ("1", 1, "mine-1")
    assert (data["messageId"], data["content"]["text"]) == (answer.message_id, "hello")


async def test_two_streams_of_one_project_both_get_a_message(
    services: Services, project: Project
) -> None:
    """G3: every open stream of the project, in both processes, gets the message."""
    async with (
        SseClient("a", [services.a.url], project.id, project.token, from_seq=None) as one,
        SseClient("b", [services.b.url], project.id, project.token, from_seq=None) as two,
    ):
        await one.wait_live()
        await two.wait_live()
        await project.api.post(project.id, "hello")
        await one.wait_seq(1)
        await two.wait_seq(1)
    assert [each.data for each in one.events("message.new")] == [
        each.data for each in two.events("message.new")
    ]


async def test_a_reconnect_with_the_last_event_id_gets_the_missed_messages(
    services: Services, project: Project
) -> None:
    """G3: disconnect at N, reconnect with `Last-Event-ID: N`, receive N+1 …"""
    await project.fill(3)
    async with SseClient("r", [services.a.url], project.id, project.token) as client:
        await client.wait_seq(3)
        cursor = client.cursor
    await project.fill(7)
    async with SseClient("r", [services.b.url], project.id, project.token) as client:
        client.cursor = cursor
        await client.wait_live()
    assert [event.event_id for event in client.events("message.replay")] == ["4", "5", "6", "7"]


async def test_without_redis_posts_succeed_and_streams_continue(
    shared_url: str, own_redis: RedisServer, tmp_path: object, new_project: NewProject,
    tmp_path_factory: object,
) -> None:  # fmt: skip
    """G7: while Redis is down no post fails and no stream ends; no message is lost."""
    folder = own_redis.data_dir.parent
    environment = service_environment(shared_url, own_redis.url)
    async with ServiceProcess("without-redis", folder, environment) as process:
        project = await new_project(process)
        posts: list[Post] = []
        acknowledgements: list[Acknowledgement] = []

        async def post(count: int) -> None:
            for _ in range(count):
                sent = Post(project.id, "owner", f"c{len(posts)}", f"text {len(posts)}")
                posts.append(sent)
                answer = await project.api.post(project.id, sent.text, sent.client_msg_id)
                acknowledgements.append(
                    Acknowledgement(sent, answer.seq, answer.message_id, answer.duplicate, 0.0)
                )

        async with SseClient("w", [process.url], project.id, project.token) as client:
            await client.wait_live()
            await post(3)
            await client.wait_seq(3)
            await asyncio.to_thread(own_redis.kill)
            await post(5)
            await client.wait_seq(8, timeout_s=2)
            health = await project.api.request("GET", "/health/ready")
            assert (health.status_code, health.json()["status"]) == (200, "degraded")
            await asyncio.to_thread(own_redis.start)
            await post(5)
            await client.wait_seq(13)
            assert client.reconnects == 0
        report = check(
            posts=posts,
            acknowledgements=acknowledgements,
            clients=[client.history()],
            log=await project.api.log(project.id),
        )
        assert report.ok, str(report)
