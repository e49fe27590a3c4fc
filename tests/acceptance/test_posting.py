"""docs/protocol.md §4: posting over real HTTP: responses, idempotency, rate, and disconnects."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest

from tests.acceptance.conftest import Project, Services
from tests.acceptance.error_form import checked_error
from tests.conftest import StartService
from tests.support.api import Api
from tests.support.raw_stream import raw_connection
from tests.support.signing import signed_headers
from tests.support.waiting import wait_until


@pytest.fixture
def services(each_post_path: Services) -> Services:
    """Run every test here on both code paths of a post."""
    return each_post_path


async def test_the_first_post_is_201_and_a_repeat_200(project: Project) -> None:
    """§4: both responses have the same seq, message id, timestamp and `client_msg_id`."""
    body = {"message": "hello", "client_msg_id": "c1"}
    first = await project.api.request("POST", project.messages, body)
    again = await project.api.request("POST", project.messages, body)
    assert (first.status_code, again.status_code) == (201, 200)
    expected = first.json()
    assert set(expected) == {
        "success", "queued", "duplicate", "client_msg_id", "projectId", "seq", "messageId",
        "timestamp",
    }  # fmt: skip
    assert (expected["success"], expected["queued"], expected["seq"]) == (True, False, 1)
    assert again.json() == {**expected, "duplicate": True}


async def test_different_content_under_the_same_client_id_is_409(project: Project) -> None:
    """G5: `IDEMPOTENCY_MISMATCH`, and nothing is appended."""
    await project.api.post(project.id, "hello", "c1")
    body = {"message": "other", "client_msg_id": "c1"}
    response = await project.api.request("POST", project.messages, body)
    checked_error(response, 409, "IDEMPOTENCY_MISMATCH")
    assert (await project.api.history_page(project.id)).head_seq == 1


async def test_a_batch_is_appended_in_order(project: Project) -> None:
    """§4: one transaction appends all in order; 201 with one result per message."""
    body = {"messages": [{"message": text, "client_msg_id": text} for text in ("a", "b", "a")]}
    response = await project.api.request("POST", f"{project.messages}/batch", body)
    results = response.json()["results"]
    assert response.status_code == 201
    assert [(each["seq"], each["duplicate"]) for each in results] == [
        (1, False), (2, False), (1, True),
    ]  # fmt: skip


async def test_one_mismatch_in_a_batch_refuses_the_whole_batch(project: Project) -> None:
    """§4: `details.index` names the message, and nothing is written."""
    await project.api.post(project.id, "a", "a")
    body = {"messages": [{"message": "new"}, {"message": "other", "client_msg_id": "a"}]}
    response = await project.api.request("POST", f"{project.messages}/batch", body)
    error = checked_error(response, 409, "IDEMPOTENCY_MISMATCH")
    assert msgspec.convert(error["details"], dict[str, object])["index"] == 1
    assert (await project.api.history_page(project.id)).head_seq == 1


@pytest.mark.parametrize("mode", ["plan", "build"])
async def test_the_unified_endpoint_stores_the_users_message(project: Project, mode: str) -> None:
    """§5: in both modes the user's message is committed and the response has its seq."""
    body = {"projectId": project.id, "message": "hello", "client_msg_id": "c", "mode": mode}
    response = await project.api.request("POST", "/v1/chat/unified", body)
    assert (response.status_code, response.json()["seq"]) == (201, 1)
    (row, *_) = await project.api.log(project.id)
    content = msgspec.json.decode(row.data)["content"]
    assert (content["text"], content["mode"], content["type"]) == ("hello", mode, "user")


async def test_a_client_that_disconnects_during_a_post_leaves_a_whole_message_or_none(
    services: Services, project: Project
) -> None:
    """G5: a partial request appends nothing; a whole one appends once, also when repeated."""
    body = msgspec.json.encode({"message": "x" * 5000, "client_msg_id": "left"})
    headers = signed_headers("POST", project.messages, "owner", body)
    head = f"POST {project.messages} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head += f"Content-Length: {len(body)}\r\n\r\n"
    request = head.encode() + body
    for sent in (len(head) + 10, len(request) - 1, len(request)):
        async with raw_connection(services.a.port) as (_, writer):
            writer.write(request[:sent])
            await writer.drain()
            # All is sent; disconnect without reading the response.
            writer.write_eof()
    # Either the whole request was appended, or this repeat appends it: once in both cases.
    answer = await project.api.post(project.id, "x" * 5000, "left")
    assert answer.seq == 1
    (row,) = await project.api.log(project.id)
    assert (row.text, row.client_msg_id) == ("x" * 5000, "left")


async def test_a_post_is_appended_though_its_client_disconnected(
    services: Services, project: Project
) -> None:
    """G1: a post takes effect also when its client does not wait for the response."""
    body = b'{"message":"nobody waits"}'
    headers = signed_headers("POST", project.messages, "owner", body)
    head = f"POST {project.messages} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    async with raw_connection(services.a.port) as (_, writer):
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        await writer.drain()

        async def there() -> bool:
            return (await project.api.history_page(project.id)).head_seq == 1

        await wait_until(there, what="the message")


async def test_the_clients_request_id_is_returned(project: Project) -> None:
    """§4: the response has the `X-Request-Id` of the request."""
    response = await project.api.request(
        "GET", project.messages, headers={"X-Request-Id": "mine-1"}
    )
    assert response.headers["x-request-id"] == "mine-1"


async def test_posts_above_the_rate_are_429_with_retry_after(
    rate_limited: Api,
) -> None:
    """§6, limits: posts per user and project, with a burst; the same across processes."""
    await rate_limited.create_project("limited")
    statuses = []
    for number in range(6):
        response = await rate_limited.request(
            "POST", "/v1/projects/limited/chat/messages", {"message": str(number)}
        )
        statuses.append(response.status_code)
        if response.status_code == 429:
            checked_error(response, 429, "RATE_LIMITED")
            assert int(response.headers["retry-after"]) >= 1
    assert statuses[:4] == [201] * 4
    assert 429 in statuses


@pytest.fixture
async def rate_limited(start_service: StartService) -> AsyncIterator[Api]:
    """Client of a process that allows one post per second, with bursts of four."""
    process = await start_service({"SEQSTREAM_POSTS_PER_SECOND": "1"})
    async with Api(process.url, "owner") as api:
        yield api


async def test_equal_posts_to_two_processes_at_once_give_one_message(
    services: Services, project: Project
) -> None:
    """G5: idempotency holds across processes."""
    async with Api(services.b.url, "owner") as other:
        for number in range(10):
            same = f"same-{number}"
            one, two = await asyncio.gather(
                project.api.post(project.id, "x", same),
                other.post(project.id, "x", same),
            )
            assert (one.seq, one.message_id) == (two.seq, two.message_id)
            assert {one.duplicate, two.duplicate} == {True, False}
            assert one.seq == number + 1
