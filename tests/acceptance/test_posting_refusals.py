"""docs/protocol.md §3 and §4: posts that are refused, over real HTTP: validation, size, access."""

from __future__ import annotations

import httpx
import msgspec
import pytest

from tests.acceptance.conftest import Project, Services
from tests.acceptance.error_form import checked_error
from tests.support.api import Api
from tests.support.raw_stream import RawResponse, raw_connection
from tests.support.signing import signed_headers, token


@pytest.fixture
def services(each_post_path: Services) -> Services:
    """Run every test here on both code paths of a post."""
    return each_post_path


def _base(project: Project) -> httpx.URL:
    return project.api._client.base_url


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
    error = checked_error(response, 400, "VALIDATION_FAILED")
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
        error = checked_error(
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
    checked_error(response, 400, "VALIDATION_FAILED")


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
async def test_a_content_type_other_than_json_is_415(project: Project, kind: str) -> None:
    """§4: bodies must be `application/json`."""
    body = b'{"message":"x"}'
    headers = signed_headers("POST", project.messages, "owner", body)
    async with httpx.AsyncClient(base_url=_base(project), trust_env=False) as http:
        response = await http.post(
            project.messages, content=body, headers={**headers, "Content-Type": kind}
        )
    checked_error(response, 415, "UNSUPPORTED_MEDIA_TYPE")


async def test_an_anonymous_post_is_401(project: Project) -> None:
    """§3: there is no anonymous access."""
    async with httpx.AsyncClient(base_url=_base(project), trust_env=False) as http:
        response = await http.post(project.messages, json={"message": "x"})
    checked_error(response, 401, "UNAUTHENTICATED")


async def test_a_token_in_the_query_is_accepted_for_streams_only(project: Project) -> None:
    """§3: `?token=` on another endpoint is 401."""
    async with httpx.AsyncClient(base_url=_base(project), trust_env=False) as http:
        query = {"token": token("owner", scope="read write")}
        response = await http.get(project.messages, params=query)
    checked_error(response, 401, "UNAUTHENTICATED")


async def test_a_body_changed_after_signing_is_401(project: Project) -> None:
    """§3: the signature covers the body."""
    headers = signed_headers("POST", project.messages, "owner", b'{"message":"signed"}')
    async with httpx.AsyncClient(base_url=_base(project), trust_env=False) as http:
        response = await http.post(
            project.messages,
            content=b'{"message":"changed"}',
            headers={**headers, "Content-Type": "application/json"},
        )
    checked_error(response, 401, "UNAUTHENTICATED")


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
                error = checked_error(response, 403, "UNAUTHORIZED_PROJECT_ACCESS")
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
        checked_error(response, 403, "FORBIDDEN")


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
    checked_error(response, status, code)


async def test_a_text_above_64_kib_is_413(project: Project) -> None:
    """§4: the code is `PAYLOAD_TOO_LARGE`."""
    response = await project.api.request("POST", project.messages, {"message": "x" * 65_537})
    checked_error(response, 413, "PAYLOAD_TOO_LARGE")


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
