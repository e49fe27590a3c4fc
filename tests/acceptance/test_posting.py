"""docs/protocol.md §4: posting over real HTTP: responses, refusals, and clients that disconnect."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
import msgspec
import pytest

from tests.acceptance.conftest import Project, Services
from tests.conftest import StartService
from tests.support.api import Api
from tests.support.raw_stream import RawResponse, raw_connection
from tests.support.signing import signed_headers, token
from tests.support.waiting import wait_until


@pytest.fixture
def services(each_post_path: Services) -> Services:
    """Run every test here on both code paths of a post."""
    return each_post_path


async def _error(response: httpx.Response, status: int, code: str) -> dict[str, object]:
    """Check the form of an error response and return its body."""
    body: dict[str, object] = response.json()
    assert response.status_code == status, body
    assert response.headers["content-type"].startswith("application/json")
    assert body["code"] == code
    assert isinstance(body["error"], str)
    assert body["requestId"] == response.headers["x-request-id"]
    assert set(body) <= {"error", "code", "details", "requestId"}
    assert "Traceback" not in response.text
    return body


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
    await _error(response, 409, "IDEMPOTENCY_MISMATCH")
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
    error = await _error(response, 409, "IDEMPOTENCY_MISMATCH")
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


@pytest.mark.parametrize(
    ("field", "body"),
    [
        ("message", {}),
        ("message", {"message": ""}),
        ("message", {"message": 5}),
        ("message", {"message": "a\x00b"}),
        ("client_msg_id", {"message": "x", "client_msg_id": ""}),
        ("client_msg_id", {"message": "x", "client_msg_id": "y" * 129}),
        ("client_msg_id", {"message": "x", "client_msg_id": 7}),
        ("parentId", {"message": "x", "parentId": ""}),
        ("metadata", {"message": "x", "metadata": []}),
        ("body", []),
    ],
)
async def test_a_bad_field_is_400_and_named(
    project: Project, field: str, body: dict[str, object]
) -> None:
    """§4: 400 `VALIDATION_FAILED`, and `details` name the field."""
    response = await project.api.request("POST", project.messages, body)
    error = await _error(response, 400, "VALIDATION_FAILED")
    details = msgspec.convert(error["details"], list[dict[str, str]])
    assert [each["field"] for each in details] == [field]


@pytest.mark.parametrize("name", ["response_data", "build_id", "regenerates"])
async def test_metadata_reserved_for_the_service_cannot_be_set(project: Project, name: str) -> None:
    """§4: readers trust these fields as the service's report on the end of a build or answer."""
    forged = {"message": "x", "metadata": {"mine": 1, name: {"type": "build_completed"}}}
    for path, body, field in [
        (project.messages, forged, f"metadata.{name}"),
        (
            f"{project.messages}/batch",
            {"messages": [{"message": "y"}] * 3 + [forged]},
            f"messages[3].metadata.{name}",
        ),
        ("/v1/chat/unified", {**forged, "projectId": project.id}, f"metadata.{name}"),
        (
            "/v1/chat/unified",
            {**forged, "projectId": project.id, "mode": "build"},
            f"metadata.{name}",
        ),
    ]:
        error = await _error(
            await project.api.request("POST", path, body), 400, "VALIDATION_FAILED"
        )
        details = msgspec.convert(error["details"], list[dict[str, str]])
        assert [each["field"] for each in details] == [field]
    assert (await project.api.history_page(project.id)).head_seq == 0


async def test_metadata_of_a_read_message_may_be_posted_back(project: Project) -> None:
    """§6: null `build_id` and `response_data`, as read messages have them, are accepted."""
    metadata = {"build_id": None, "response_data": None, "mine": 1}
    body = {"message": "x", "metadata": metadata}
    assert (await project.api.request("POST", project.messages, body)).status_code == 201
    (row,) = await project.api.log(project.id)
    assert msgspec.json.decode(row.data)["metadata"] == metadata


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b'{"message":"\xff"}', b"[" * 100_000])
async def test_invalid_json_is_400(project: Project, body: bytes) -> None:
    """§4: 400 `VALIDATION_FAILED`, without a stack trace."""
    headers = signed_headers("POST", project.messages, "owner", body)
    async with httpx.AsyncClient(base_url=_base(project), trust_env=False) as http:
        response = await http.post(
            project.messages, content=body, headers={**headers, "Content-Type": "application/json"}
        )
    await _error(response, 400, "VALIDATION_FAILED")


def _base(project: Project) -> httpx.URL:
    return project.api._client.base_url


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
async def test_a_content_type_other_than_json_is_415(project: Project, kind: str) -> None:
    """§4: bodies must be `application/json`."""
    body = b'{"message":"x"}'
    headers = signed_headers("POST", project.messages, "owner", body)
    async with httpx.AsyncClient(base_url=_base(project), trust_env=False) as http:
        response = await http.post(
            project.messages, content=body, headers={**headers, "Content-Type": kind}
        )
    await _error(response, 415, "UNSUPPORTED_MEDIA_TYPE")


async def test_an_anonymous_post_is_401(project: Project) -> None:
    """§3: there is no anonymous access."""
    async with httpx.AsyncClient(base_url=_base(project), trust_env=False) as http:
        response = await http.post(project.messages, json={"message": "x"})
    await _error(response, 401, "UNAUTHENTICATED")


async def test_a_token_in_the_query_is_accepted_for_streams_only(project: Project) -> None:
    """§3: `?token=` on another endpoint is 401."""
    async with httpx.AsyncClient(base_url=_base(project), trust_env=False) as http:
        query = {"token": token("owner", scope="read write")}
        response = await http.get(project.messages, params=query)
    await _error(response, 401, "UNAUTHENTICATED")


async def test_a_body_changed_after_signing_is_401(project: Project) -> None:
    """§3: the signature covers the body."""
    headers = signed_headers("POST", project.messages, "owner", b'{"message":"signed"}')
    async with httpx.AsyncClient(base_url=_base(project), trust_env=False) as http:
        response = await http.post(
            project.messages,
            content=b'{"message":"changed"}',
            headers={**headers, "Content-Type": "application/json"},
        )
    await _error(response, 401, "UNAUTHENTICATED")


async def test_a_foreign_project_and_an_unknown_project_get_the_same_403(
    services: Services, project: Project
) -> None:
    """§3: a stranger cannot find out whether a project exists."""
    async with Api(services.a.url, "stranger") as stranger:
        bodies = []
        for project_id in (project.id, "no-such-project"):
            path = f"/v1/projects/{project_id}/chat/messages"
            for response in (
                await stranger.request("POST", path, {"message": "x"}),
                await stranger.request("GET", path),
                await stranger.request("GET", f"/v1/projects/{project_id}"),
            ):
                error = await _error(response, 403, "UNAUTHORIZED_PROJECT_ACCESS")
                bodies.append((error["error"], error["code"], error.get("details")))
    assert set(bodies) == {("Project access denied", "UNAUTHORIZED_PROJECT_ACCESS", None)}


@pytest.mark.parametrize(
    ("scope", "method", "status"),
    [("read", "GET", 200), ("read", "POST", 403), ("write", "POST", 201), ("write", "GET", 403)],
)
async def test_a_token_is_limited_to_its_scopes(
    project: Project, scope: str, method: str, status: int
) -> None:
    """§3: a missing scope is 403 `FORBIDDEN`."""
    headers = {"Authorization": f"Bearer {token('owner', scope=scope)}"}
    async with httpx.AsyncClient(base_url=_base(project), trust_env=False) as http:
        body = {"message": "x"} if method == "POST" else None
        response = await http.request(method, project.messages, json=body, headers=headers)
    assert response.status_code == status
    if status == 403:
        await _error(response, 403, "FORBIDDEN")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/nothing", 404, "NOT_FOUND"),
        ("GET", "/nothing", 404, "NOT_FOUND"),
        ("DELETE", "/v1/projects/{id}/chat/messages", 405, "METHOD_NOT_ALLOWED"),
        ("POST", "/v1/projects/{id}/chat/stream", 405, "METHOD_NOT_ALLOWED"),
        ("GET", "/v1/projects/b%20d/chat/messages", 400, "VALIDATION_FAILED"),
    ],
)
async def test_a_bad_address_gets_an_error_of_the_common_form(
    project: Project, method: str, path: str, status: int, code: str
) -> None:
    """§4: every error has the same form."""
    response = await project.api.request(method, path.replace("{id}", project.id))
    await _error(response, status, code)


async def test_a_text_above_64_kib_is_413(project: Project) -> None:
    """§4: the code is `PAYLOAD_TOO_LARGE`."""
    response = await project.api.request("POST", project.messages, {"message": "x" * 65_537})
    await _error(response, 413, "PAYLOAD_TOO_LARGE")


async def test_a_text_of_64_kib_is_accepted(project: Project) -> None:
    """§4: a message's text is at most 64 KiB."""
    assert (await project.api.post(project.id, "x" * 65_536)).seq == 1


async def test_a_body_of_1_mib_is_accepted(project: Project) -> None:
    """§4: exactly 1 MiB is within the limit; unknown fields are ignored."""
    frame = len(msgspec.json.encode({"message": "x", "filler": ""}))
    body = {"message": "x", "filler": "y" * (1024 * 1024 - frame)}
    response = await project.api.request("POST", project.messages, body)
    assert response.status_code == 201


async def test_a_body_above_1_mib_is_413(services: Services, project: Project) -> None:
    """§4: one byte more is `PAYLOAD_TOO_LARGE`."""
    async with raw_connection(services.a.port) as (reader, writer):
        writer.write(
            f"POST {project.messages} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            f"Authorization: Bearer {token('owner', scope='write')}\r\n"
            f"Content-Length: {1024 * 1024 + 1}\r\n\r\n".encode()
        )
        response = RawResponse(reader, writer)
        await response.read_head()
        await response.close()
    assert response.status == 413


@pytest.mark.parametrize("target", ["messages", "stream", "unified", "projects"])
async def test_a_huge_body_is_refused_before_it_is_read(
    services: Services, project: Project, target: str
) -> None:
    """§4: 413 after a few bytes of a body with a Content-Length of 100 MB."""
    path = {
        "messages": project.messages,
        "stream": f"/v1/projects/{project.id}/chat/stream",
        "unified": "/v1/chat/unified",
        "projects": "/v1/projects",
    }[target]
    method = "GET" if target == "stream" else "POST"
    async with raw_connection(services.a.port) as (reader, writer):
        writer.write(
            f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            f"Authorization: Bearer {token('owner', scope='read write')}\r\n"
            f"Content-Length: 100000000\r\n\r\n".encode()
            + b'{"message":"'
        )
        response = RawResponse(reader, writer)
        await response.read_head()
        await response.wait_end()
        await response.close()
    assert response.status == 413
    assert msgspec.json.decode(response.body)["code"] == "PAYLOAD_TOO_LARGE"


async def test_a_chunked_body_above_1_mib_is_413(services: Services, project: Project) -> None:
    """§4: also without a Content-Length; the service does not wait for the rest of the body."""
    async with raw_connection(services.a.port) as (reader, writer):
        writer.write(
            f"POST {project.messages} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            f"Authorization: Bearer {token('owner', scope='write')}\r\n"
            f"Transfer-Encoding: chunked\r\n\r\n".encode()
        )
        for _ in range(17):
            writer.write(b"10000\r\n" + b"x" * 65_536 + b"\r\n")
        response = RawResponse(reader, writer)
        await response.read_head()
        await response.close()
    assert response.status == 413


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


async def test_posts_beyond_the_rate_are_429_with_retry_after(
    rate_limited: Api,
) -> None:
    """§6, limits: posts per user and project, with a burst."""
    await rate_limited.create_project("limited")
    statuses = []
    for number in range(6):
        response = await rate_limited.request(
            "POST", "/v1/projects/limited/chat/messages", {"message": str(number)}
        )
        statuses.append(response.status_code)
        if response.status_code == 429:
            await _error(response, 429, "RATE_LIMITED")
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
