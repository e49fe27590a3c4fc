"""docs/protocol.md §5, mode `plan`: the assistant's answers, with real processes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
import redis

from service.operate.embedded import RedisServer
from streams.window import keys
from tests.acceptance.conftest import Services
from tests.support.api import Api
from tests.support.completions_server import DONE, CompletionsServer, chunk
from tests.support.history import Event
from tests.support.processes import ServiceProcess, service_environment
from tests.support.signing import token
from tests.support.sse_client import SseClient

PIECES = [f"word{n} " for n in range(30)]
TEXT = "".join(PIECES)
WHOLE = [*map(chunk, PIECES), DONE]

_numbers = count(1)


class Delta(msgspec.Struct, frozen=True, rename="camel"):
    """The content of a `message.delta`."""

    message_id: str
    index: int
    delta: str


class _DeltaData(msgspec.Struct, rename="camel"):
    entry_id: str
    content: Delta


class Assistant(NamedTuple):
    """A scripted completions endpoint, and a service that uses it for its assistant."""

    endpoint: CompletionsServer
    service: ServiceProcess


class OwnProject(NamedTuple):
    """A project for one test, and its API client."""

    id: str
    api: Api


@pytest.fixture(scope="module")
async def assistant(
    shared_url: str, redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Assistant]:
    """One for this file. Its lease of 1 s ends the answers of a dead process within seconds."""
    async with CompletionsServer() as endpoint:
        settings = {
            "SEQSTREAM_ASSISTANT_URL": endpoint.url,
            "SEQSTREAM_ASSISTANT_MODEL": "m",
            "SEQSTREAM_ASSISTANT_KEY": "k" * 40,
            "SEQSTREAM_ANSWER_LEASE_SECONDS": "1",
        }
        environment = service_environment(shared_url, redis_server.url, settings)
        folder = tmp_path_factory.mktemp("assistant")
        async with ServiceProcess("assistant", folder, environment) as service:
            yield Assistant(endpoint, service)


@contextlib.asynccontextmanager
async def _alices_project(service: ServiceProcess) -> AsyncIterator[OwnProject]:
    """A project owned by alice, with no open stream yet."""
    async with Api(service.url, "alice") as api:
        project = OwnProject(f"plan-{next(_numbers)}", api)
        await api.create_project(project.id)
        yield project


async def _plan(project: OwnProject, **body: object) -> Any:
    response = await project.api.request(
        "POST", "/v1/chat/unified", {"projectId": project.id, "message": "plan it", **body}
    )
    assert response.status_code in (200, 201), response.text
    return response.json() | {"status_code": response.status_code}


def _deltas(events: list[Event]) -> list[Delta]:
    """The deltas of all answers, without repeated entry ids."""
    found: dict[str, Delta] = {}
    for event in events:
        if event.name == "message.delta":
            data = msgspec.json.decode(event.data, type=_DeltaData)
            found.setdefault(data.entry_id, data.content)
    return list(found.values())


def _message(client: SseClient, seq: int) -> Any:
    (event,) = (e for e in client.events("message.new", "message.replay") if e.event_id == str(seq))
    return msgspec.json.decode(event.data)


def _client(
    project: OwnProject, service: ServiceProcess, name: str = "client", from_seq: int = 0
) -> SseClient:
    return SseClient(name, [service.url], project.id, token("alice"), from_seq=from_seq)


async def test_an_unstreamed_answer_is_in_the_response(assistant: Assistant) -> None:
    """§5: the response is 201 with both messages; both are committed and broadcast."""
    server, service = assistant
    server.answer_with(WHOLE)
    async with _alices_project(service) as project, _client(project, service) as client:
        await project.api.post(project.id, "earlier")
        made = await _plan(project, client_msg_id="c1")
        again = await _plan(project, client_msg_id="c1")
        await client.wait_seq(3)
        log = await project.api.log(project.id)
    assert (made["status_code"], made["queued"], made["seq"]) == (201, False, 2)
    assert (made["assistant"]["seq"], made["assistant"]["content"]["text"]) == (3, TEXT)
    assert made["assistant"] == _message(client, 3) == msgspec.json.decode(log[2].data)
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
    async with _alices_project(service) as project, _client(project, service) as client:
        made = await _plan(project, stream=True, client_msg_id="c1")
        again = await _plan(project, stream=True, client_msg_id="c1")
        await client.wait_seq(2)
    assert (made["queued"], made.get("assistant")) == (True, None)
    assert again["assistantMessageId"] == made["assistantMessageId"]
    whole = _message(client, 2)
    assert (whole["messageId"], whole["content"]["text"]) == (made["assistantMessageId"], TEXT)
    deltas = _deltas(client.events())
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
    half = "".join(PIECES[:15])

    def has_half(client: SseClient) -> bool:
        return "".join(delta.delta for delta in _deltas(client.events())) == half

    async with _alices_project(service) as project, _client(project, service, "stays") as stays:
        first = _client(project, service, "first")
        async with first:
            await _plan(project, stream=True)
            await first.wait_until(has_half, timeout_s=10)
        # Disconnected; now reconnect with the last event id.
        async with _client(project, service, "again", from_seq=int(first.cursor or 0)) as again:
            await again.wait_live()
            async with _client(project, service, "late") as late:
                await late.wait_until(has_half, timeout_s=10)
                server.go_on.set()
                for client in (stays, again, late):
                    await client.wait_seq(2)
    for events in (stays.events(), first.events() + again.events(), late.events()):
        assert "".join(delta.delta for delta in _deltas(events)) == TEXT


async def test_an_endpoint_failure_becomes_an_assistant_message(assistant: Assistant) -> None:
    """§5: the assistant message names the reason, contains no secret, and has the text so far."""
    server, service = assistant
    server.answer_with([b"key " + b"k" * 40], status=500)
    async with _alices_project(service) as project:
        made = await _plan(project)
    assert made["assistant"]["content"]["text"] == ""
    assert made["assistant"]["metadata"]["response_data"] == {
        "type": "answer_failed",
        "replyTo": made["messageId"],
        "reason": "the assistant's endpoint answered with status 500",
    }


async def test_an_answer_of_a_killed_process_ends_as_failed(
    assistant: Assistant, tmp_path: Path
) -> None:
    """Another process ends the answer, within a bounded time, with a failed assistant message."""
    server, service = assistant
    server.answer_with(WHOLE, pause_before=15)
    async with ServiceProcess("dies", tmp_path, service.environment) as first:
        async with _alices_project(first) as project, _client(project, service) as client:
            made = await _plan(project, stream=True)
            await client.wait_until(lambda c: _deltas(c.events()) != [], timeout_s=10)
            await first.kill()
            await client.wait_seq(2)
    whole = _message(client, 2)
    assert whole["messageId"] == made["assistantMessageId"]
    assert whole["metadata"]["response_data"]["type"] == "answer_failed"


async def test_a_service_that_is_stopped_ends_its_answers(
    assistant: Assistant, tmp_path: Path
) -> None:
    """SIGTERM: an answer in progress ends as a failed message; the process exits within 10 s."""
    server, service = assistant
    server.answer_with(WHOLE, pause_before=15)
    async with ServiceProcess("ends", tmp_path, service.environment) as first:
        async with _alices_project(first) as project, _client(project, service) as client:
            await _plan(project, stream=True)
            assert await first.terminate() == 0
            await client.wait_seq(2)
    assert b"answer_failed" in client.events("message.new", "message.replay")[-1].data


async def test_without_an_endpoint_the_built_in_assistant_answers(services: Services) -> None:
    """Same response form, without network; a user may have 8 answers at once."""
    async with _alices_project(services.a) as project:
        made = await asyncio.gather(*(_plan(project, client_msg_id=f"c{n}") for n in range(8)))
    assert all(each["assistant"]["content"]["text"].startswith("You asked") for each in made)


async def test_concurrent_answers_are_limited_per_user(assistant: Assistant) -> None:
    """§6: above the limit 429 with `Retry-After`; repeated requests and other users are served."""
    server, service = assistant
    server.answer_with(WHOLE, pause_before=0)
    async with _alices_project(service) as project, Api(service.url, "bob") as bob:
        await project.api.add_member(project.id, "bob")
        begun = [await _plan(project, stream=True, client_msg_id=f"c{n}") for n in range(8)]
        body = {"projectId": project.id, "message": "one more", "stream": True}
        for more in ({}, {"client_msg_id": "c8"}):
            response = await project.api.request("POST", "/v1/chat/unified", body | more)
            assert (response.status_code, response.json()["code"]) == (429, "RATE_LIMITED")
            assert int(response.headers["retry-after"]) >= 1
        again = await _plan(project, stream=True, client_msg_id="c0")
        assert again["assistantMessageId"] == begun[0]["assistantMessageId"]
        response = await bob.request("POST", "/v1/chat/unified", body)
        assert response.status_code == 201
        assert [row.seq for row in await project.api.log(project.id)] == list(range(1, 10))
        server.go_on.set()


async def test_a_user_id_in_the_body_must_be_the_callers(services: Services) -> None:
    """§5: another `userId` in the body is 403, and nothing is written."""
    async with _alices_project(services.a) as project:
        body = {"projectId": project.id, "message": "x", "userId": "bob", "mode": "build"}
        response = await project.api.request("POST", "/v1/chat/unified", body)
        assert (response.status_code, response.json()["code"]) == (403, "FORBIDDEN")
        assert await project.api.log(project.id) == []


async def test_build_immediately_means_mode_build(services: Services) -> None:
    """§5: `buildImmediately: true` is mode `build`; the same id with another mode is 409."""
    async with _alices_project(services.a) as project:
        made = await _plan(project, buildImmediately=True, client_msg_id="c1")
        assert (made["queued"], made["status"]) == (True, "queued")
        body = {
            "projectId": project.id,
            "message": "plan it",
            "client_msg_id": "c1",
            "mode": "plan",
        }
        response = await project.api.request("POST", "/v1/chat/unified", body)
        assert (response.status_code, response.json()["code"]) == (409, "IDEMPOTENCY_MISMATCH")
