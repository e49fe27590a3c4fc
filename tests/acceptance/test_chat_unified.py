"""docs/protocol.md §5, mode `plan`: the assistant's answers, with real processes."""

from __future__ import annotations

import asyncio

import msgspec
import redis

from service.operate.embedded import RedisServer
from streams.window import keys
from tests.acceptance.conftest import Services
from tests.support.api import Api
from tests.support.plan_mode import (
    HALF,
    PIECES,
    TEXT,
    WHOLE,
    Assistant,
    alices_project,
    ask,
    deltas_of,
    message_of,
    watch,
)
from tests.support.sse_client import SseClient


async def test_an_unstreamed_answer_is_in_the_response(assistant: Assistant) -> None:
    """§5: the response is 201 with both messages; both are committed and broadcast."""
    server, service = assistant
    server.answer_with(WHOLE)
    async with alices_project(service) as project, watch(project, service) as client:
        await project.api.post(project.id, "earlier")
        made = await ask(project, client_msg_id="c1")
        again = await ask(project, client_msg_id="c1")
        await client.wait_seq(3)
        log = await project.api.log(project.id)
    assert (made["status_code"], made["queued"], made["seq"]) == (201, False, 2)
    assert (made["assistant"]["seq"], made["assistant"]["content"]["text"]) == (3, TEXT)
    assert made["assistant"] == message_of(client, 3) == msgspec.json.decode(log[2].data)
    assert made["assistant"]["content"]["type"] == "assistant"
    assert made["assistant"]["parentId"] == made["messageId"]
    # A repeated request returns the first answer and causes no second one.
    assert (again["status_code"], again["assistant"]) == (200, made["assistant"])
    assert len(log) == 3
    (asked,) = server.requests
    assert [turn["content"] for turn in asked["messages"]] == ["earlier", "plan it"]


async def test_the_deltas_of_a_streamed_answer_equal_its_message(
    assistant: Assistant, redis_server: RedisServer
) -> None:
    """§5: the response comes at once; the joined deltas equal the message that follows."""
    server, service = assistant
    server.answer_with(WHOLE)
    async with alices_project(service) as project, watch(project, service) as client:
        made = await ask(project, stream=True, client_msg_id="c1")
        again = await ask(project, stream=True, client_msg_id="c1")
        await client.wait_seq(2)
    assert (made["queued"], made.get("assistant")) == (True, None)
    assert again["assistantMessageId"] == made["assistantMessageId"]
    whole = message_of(client, 2)
    assert (whole["messageId"], whole["content"]["text"]) == (made["assistantMessageId"], TEXT)
    deltas = deltas_of(client.events())
    assert [delta.index for delta in deltas] == list(range(len(deltas)))
    assert {delta.message_id for delta in deltas} == {made["assistantMessageId"]}
    assert "".join(delta.delta for delta in deltas) == TEXT
    # Pieces that arrive together are merged into one entry.
    assert len(deltas) < len(PIECES)
    # Check the order in Redis: a process that reads Redis late may deliver the message first.
    with redis.Redis.from_url(redis_server.url) as other:
        names = [fields[b"event"] for _, fields in other.xrange(keys.stream(project.id))]
    assert names == [b"message.new", *[b"message.delta"] * len(deltas), b"message.new"]
    assert len(server.requests) == 1


async def test_a_client_that_reconnects_during_an_answer_gets_all_its_text(
    assistant: Assistant,
) -> None:
    """Resume: it gets the deltas it missed and the later ones, which join to the same text."""
    server, service = assistant
    server.answer_with(WHOLE, pause_before=15)

    def has_half(client: SseClient) -> bool:
        return "".join(delta.delta for delta in deltas_of(client.events())) == HALF

    async with (
        alices_project(service) as project,
        watch(project, service, "stays") as stays,
    ):
        first = watch(project, service, "first")
        async with first:
            await ask(project, stream=True)
            await first.wait_until(has_half, timeout_s=10)
        # Disconnected; now reconnect with the last event id.
        async with watch(project, service, "again", from_seq=int(first.cursor or 0)) as again:
            await again.wait_live()
            async with watch(project, service, "late") as late:
                await late.wait_until(has_half, timeout_s=10)
                server.go_on.set()
                for client in (stays, again, late):
                    await client.wait_seq(2)
    for events in (stays.events(), first.events() + again.events(), late.events()):
        assert "".join(delta.delta for delta in deltas_of(events)) == TEXT


async def test_an_endpoint_failure_becomes_an_assistant_message(assistant: Assistant) -> None:
    """§5: the assistant message names the reason, contains no secret, and has the text so far."""
    server, service = assistant
    server.answer_with([b"key " + b"k" * 40], status=500)
    async with alices_project(service) as project:
        made = await ask(project)
    assert made["assistant"]["content"]["text"] == ""
    assert made["assistant"]["metadata"]["response_data"] == {
        "type": "answer_failed",
        "replyTo": made["messageId"],
        "reason": "the assistant's endpoint answered with status 500",
    }


async def test_without_an_endpoint_the_built_in_assistant_answers(services: Services) -> None:
    """Same response form, without network; a user may have 8 answers at once."""
    async with alices_project(services.a) as project:
        made = await asyncio.gather(*(ask(project, client_msg_id=f"c{n}") for n in range(8)))
    assert all(each["assistant"]["content"]["text"].startswith("You asked") for each in made)


async def test_concurrent_answers_are_limited_per_user(assistant: Assistant) -> None:
    """§6: above the limit 429 with `Retry-After`; repeated requests and other users are served."""
    server, service = assistant
    server.answer_with(WHOLE, pause_before=0)
    async with alices_project(service) as project, Api(service.url, "bob") as bob:
        await project.api.add_member(project.id, "bob")
        begun = [await ask(project, stream=True, client_msg_id=f"c{n}") for n in range(8)]
        body = {"projectId": project.id, "message": "one more", "stream": True}
        for more in ({}, {"client_msg_id": "c8"}):
            response = await project.api.request("POST", "/v1/chat/unified", body | more)
            assert (response.status_code, response.json()["code"]) == (429, "RATE_LIMITED")
            assert int(response.headers["retry-after"]) >= 1
        again = await ask(project, stream=True, client_msg_id="c0")
        assert again["assistantMessageId"] == begun[0]["assistantMessageId"]
        response = await bob.request("POST", "/v1/chat/unified", body)
        assert response.status_code == 201
        assert [row.seq for row in await project.api.log(project.id)] == list(range(1, 10))
        server.go_on.set()


async def test_a_user_id_in_the_body_must_be_the_callers(services: Services) -> None:
    """§5: another `userId` in the body is 403, and nothing is written."""
    async with alices_project(services.a) as project:
        body = {"projectId": project.id, "message": "x", "userId": "bob", "mode": "build"}
        response = await project.api.request("POST", "/v1/chat/unified", body)
        assert (response.status_code, response.json()["code"]) == (403, "FORBIDDEN")
        assert await project.api.log(project.id) == []


async def test_build_immediately_means_mode_build(services: Services) -> None:
    """§5: `buildImmediately: true` is mode `build`; the same id with another mode is 409."""
    async with alices_project(services.a) as project:
        made = await ask(project, buildImmediately=True, client_msg_id="c1")
        assert (made["queued"], made["status"]) == (True, "queued")
        body = {
            "projectId": project.id,
            "message": "plan it",
            "client_msg_id": "c1",
            "mode": "plan",
        }
        response = await project.api.request("POST", "/v1/chat/unified", body)
        assert (response.status_code, response.json()["code"]) == (409, "IDEMPOTENCY_MISMATCH")
