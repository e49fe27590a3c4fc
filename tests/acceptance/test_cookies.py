"""docs/protocol.md §3: tokens in cookies, and which origins may write with them."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from tests.acceptance.conftest import NewProject, Project, Services
from tests.support.processes import ServiceProcess, service_environment
from tests.support.raw_stream import raw_request
from tests.support.signing import token

ALLOWED = "https://app.example"


@pytest.fixture(scope="module")
async def process(
    services: Services, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[ServiceProcess]:
    """A process with one other allowed origin."""
    environment = service_environment(
        services.database_url, services.redis.url, {"SEQSTREAM_CORS_ORIGINS": ALLOWED}
    )
    async with ServiceProcess("cookies", tmp_path_factory.mktemp("c"), environment) as process:
        yield process


@pytest.fixture
async def project(process: ServiceProcess, new_project: NewProject) -> Project:
    """A project on that process."""
    return await new_project(process)


def _writes(project: Project) -> list[tuple[str, str, object]]:
    base = f"/v1/projects/{project.id}"
    return [
        ("POST", f"{base}/chat/messages", {"message": "x"}),  # bypasses the router
        ("POST", f"{base}/chat/messages/batch", {"messages": [{"message": "x"}]}),
        ("POST", f"{base}/chat/typing", {"typing": False}),
        ("POST", f"{base}/stream-tokens", {}),
        ("POST", f"{base}/builds/00000000-0000-4000-8000-000000000000/cancel", None),
        ("PUT", f"{base}/members/bob", None),
        ("DELETE", f"{base}/members/bob", None),
        ("POST", "/v1/chat/unified", {"projectId": project.id, "message": "x"}),
        ("POST", "/v1/projects", {"id": project.id, "name": "again"}),
    ]


async def _send(
    process: ServiceProcess, method: str, path: str, body: object, headers: list[tuple[str, str]]
) -> httpx.Response:
    async with httpx.AsyncClient(base_url=process.url, trust_env=False) as http:
        if body is None:
            return await http.request(method, path, headers=headers)
        return await http.request(method, path, json=body, headers=headers)


@pytest.mark.parametrize("name", ["seqstream_token", "__Host-seqstream"])
async def test_a_write_by_cookie_needs_an_allowed_origin(
    process: ServiceProcess, project: Project, name: str
) -> None:
    """§3: on every writing route an `Origin` that is neither own nor listed is 403."""
    cookie = ("Cookie", f"{name}={token('owner', scope='read write')}")
    for method, path, body in _writes(project):
        for origins in (
            [],
            ["https://evil.example"],
            ["null"],
            [process.url, "https://evil.example"],
            [process.url, process.url],
        ):
            headers = [cookie, *[("Origin", origin) for origin in origins]]
            refused = await _send(process, method, path, body, headers)
            assert refused.status_code == 403, (method, path, origins, refused.text)
            assert refused.json()["code"] == "FORBIDDEN"
        for origin in (process.url, ALLOWED, f"https://127.0.0.1:{process.port}"):
            headers = [cookie, ("Origin", origin)]
            taken = await _send(process, method, path, body, headers)
            # 404 is that of the cancel route: the caller has access, but no build has this id.
            assert taken.status_code in (200, 201, 202, 204, 404), (method, path, taken.text)


async def test_a_write_by_authorization_header_needs_no_origin(
    process: ServiceProcess, project: Project
) -> None:
    """§3: no browser adds this header by itself, so another site cannot misuse it."""
    bearer = ("Authorization", f"Bearer {token('owner', scope='write')}")
    for origins in ([], [("Origin", "https://evil.example")]):
        answer = await _send(
            process, "POST", project.messages, {"message": "x"}, [bearer, *origins]
        )
        assert answer.status_code == 201


async def test_a_read_by_cookie_needs_no_origin(process: ServiceProcess, project: Project) -> None:
    """§3: history and stream are readable; a same-origin EventSource sends no `Origin`."""
    cookie = ("Cookie", f"__Host-seqstream={token('owner')}")
    assert (await _send(process, "GET", project.messages, None, [cookie])).status_code == 200
    target = f"/v1/projects/{project.id}/chat/stream"
    async with raw_request(process.port, target, headers=dict([cookie])) as stream:
        await stream.wait_for("stream.live")


async def test_the_host_cookie_takes_precedence(process: ServiceProcess, project: Project) -> None:
    """§3: a sibling host can set `seqstream_token` for this host, but no `__Host-` cookie."""
    good, tossed = f"__Host-seqstream={token('owner')}", f"seqstream_token={token('mallory')}"
    for both in (f"{good}; {tossed}", f"{tossed}; {tossed}; {good}"):
        answer = await _send(process, "GET", project.messages, None, [("Cookie", both)])
        assert answer.status_code == 200
    for bad in (f"{good}; {good}", f"{tossed}; {tossed}", f"__Host-seqstream=bad; {tossed}"):
        answer = await _send(process, "GET", project.messages, None, [("Cookie", bad)])
        assert answer.status_code == 401


@pytest.mark.parametrize(
    ("host", "more", "prefix", "attributes"),
    [
        (None, {}, "seqstream_token=", {"httponly", "path=/", "samesite=strict"}),
        ("localhost:8000", {}, "seqstream_token=", {"httponly", "path=/", "samesite=strict"}),
        (
            "chat.example", {}, "__Host-seqstream=",
            {"httponly", "path=/", "samesite=strict", "secure"},
        ),
        (
            None, {"Origin": "https://chat.example"}, "__Host-seqstream=",
            {"httponly", "path=/", "samesite=strict", "secure"},
        ),
    ],
)  # fmt: skip
async def test_a_token_may_be_set_as_a_cookie(
    process: ServiceProcess,
    project: Project,
    host: str | None,
    more: dict[str, str],
    prefix: str,
    attributes: set[str],
) -> None:
    """§3: 204 and cookie `__Host-seqstream`; over plain http to loopback `seqstream_token`."""
    headers = {**more, **({} if host is None else {"Host": host})}
    answer = await project.api.request(
        "POST",
        f"/v1/projects/{project.id}/stream-tokens",
        {"cookie": True, "ttlSeconds": 60},
        headers=headers,
    )
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["cache-control"] == "no-store"
    (cookie,) = answer.headers.get_list("set-cookie")
    pair, *given = cookie.split("; ")
    assert pair.startswith(prefix)
    assert {each.lower() for each in given} == {*attributes, "max-age=60"}
    target = f"/v1/projects/{project.id}/chat/stream"
    async with raw_request(process.port, target, headers={"Cookie": pair}) as stream:
        await stream.wait_for("stream.live")


async def test_a_minted_token_in_a_response_body_is_not_cached(
    process: ServiceProcess, project: Project
) -> None:
    """§3: without a cookie the response is 201 `{token, expiresAt}` with `no-store`."""
    path = f"/v1/projects/{project.id}/stream-tokens"
    for body in (None, {}, {"cookie": False}):
        answer = await project.api.request("POST", path, body)
        assert (answer.status_code, set(answer.json())) == (201, {"token", "expiresAt"})
        assert answer.headers["cache-control"] == "no-store"
        assert "set-cookie" not in answer.headers
