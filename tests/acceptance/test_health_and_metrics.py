"""docs/protocol.md §4 and §9: health, metrics and the OpenAPI document."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import httpx
import pytest

from service.operate.embedded import RedisServer
from tests.acceptance.conftest import Project, Services
from tests.support.api import Api
from tests.support.processes import ServiceProcess, service_environment
from tests.support.raw_stream import raw_request
from tests.support.signing import token
from tests.support.waiting import wait_until

METRICS = (
    "db_to_publish_ms", "publish_to_sse_write_ms", "messages_appended_total",
    "append_batch_size", "sse_connections", "long_polls", "sse_deliveries_total", "sse_bytes_total",
    "sse_backpressure_total", "sse_closed_total", "replays_total", "replayed_messages_total",
    "stream_gaps_found_total", "stream_gaps_healed_total", "redis_up", "postgres_up",
    "tail_lag_seqs", "builds", "build_queue_age_seconds", "rate_limited_total",
    "auth_failures_total",
)  # fmt: skip

ROUTES = {
    "/v1/projects": {"post"},
    "/v1/projects/{project_id}": {"get"},
    "/v1/projects/{project_id}/members/{user_id}": {"put", "delete"},
    "/v1/projects/{project_id}/stream-tokens": {"post"},
    "/v1/chat/unified": {"post"},
    "/v1/projects/{project_id}/chat/messages": {"post", "get"},
    "/v1/projects/{project_id}/chat/messages/batch": {"post"},
    "/v1/projects/{project_id}/chat/stream": {"get"},
    "/v1/projects/{project_id}/answers/{message_id}": {"get"},
    "/v1/projects/{project_id}/answers/{message_id}/stop": {"post"},
    "/v1/projects/{project_id}/answers/{message_id}/regenerate": {"post"},
    "/v1/projects/{project_id}/answers": {"post"},
    "/v1/projects/{project_id}/answers/{message_id}/deltas": {"post"},
    "/v1/projects/{project_id}/answers/{message_id}/end": {"post"},
    "/health": {"get"},
    "/health/live": {"get"},
    "/health/ready": {"get"},
    "/metrics": {"get"},
}


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    """A client without credentials."""
    async with httpx.AsyncClient(trust_env=False, verify=False) as client:
        yield client


async def _samples(http: httpx.AsyncClient, process: ServiceProcess) -> dict[str, float]:
    text = (await http.get(f"{process.url}/metrics")).text
    lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


async def test_every_documented_metric_is_exported(
    services: Services, http: httpx.AsyncClient
) -> None:
    """§9: the names are a contract."""
    response = await http.get(f"{services.a.url}/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    names = {line.split(" ")[2] for line in response.text.splitlines() if line.startswith("# TYPE")}
    assert set(METRICS) <= names | {f"{name}_total" for name in names}


async def test_no_label_names_a_project_or_a_user(
    services: Services, project: Project, http: httpx.AsyncClient
) -> None:
    """§9: no label holds a project's or user's id."""
    await project.fill(3)
    text = (await http.get(f"{services.a.url}/metrics")).text
    labels = set(re.findall(r"(\w+)=\"", text)) - {"le", "version", "implementation"}
    assert labels <= {"event", "reason", "source", "status"}
    assert project.id not in text
    assert "owner" not in text


async def test_appends_deliveries_replays_and_connections_are_counted(
    services: Services, project: Project, http: httpx.AsyncClient
) -> None:
    """§9: three posts and one stream with a replay change the metrics accordingly."""
    before = await _samples(http, services.a)
    await project.fill(3)
    async with raw_request(services.a.port, project.stream("from_seq=1")) as response:
        await response.wait_for("stream.live")
        during = await _samples(http, services.a)
    assert during["messages_appended_total"] - before["messages_appended_total"] == 3
    assert during["sse_connections"] - before["sse_connections"] == 1
    replayed = 'sse_deliveries_total{event="message.replay"}'
    assert during[replayed] - before[replayed] == 2
    sources = [n for n in during if n.startswith("replayed_messages_total")]
    assert sum(during[n] - before[n] for n in sources) == 2
    assert (during["redis_up"], during["postgres_up"]) == (1, 1)


async def test_authentication_failures_are_counted(
    services: Services, http: httpx.AsyncClient
) -> None:
    """§9: a request without credentials increments `auth_failures_total{reason="missing"}`."""
    name = 'auth_failures_total{reason="missing"}'
    before = (await _samples(http, services.a))[name]
    await http.get(f"{services.a.url}/v1/projects/x")
    assert (await _samples(http, services.a))[name] == before + 1


async def test_health_routes_report_healthy(services: Services, http: httpx.AsyncClient) -> None:
    """§4: the body is `{status, checks}`."""
    for path in ("/health", "/health/live", "/health/ready"):
        response = await http.get(services.a.url + path)
        assert (response.status_code, response.json()["status"]) == (200, "healthy"), response.text
        assert isinstance(response.json()["checks"], dict)


async def test_without_postgres_posts_are_503_and_readiness_is_unhealthy(
    own_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory, http: httpx.AsyncClient
) -> None:
    """§4: 503 `STORE_UNAVAILABLE` with `Retry-After`; an EventSource is refused in-band."""
    environment = service_environment("postgresql://x@127.0.0.1:1/x", own_redis.url)
    process = ServiceProcess("no-postgres", tmp_path_factory.mktemp("away"), environment)
    process.spawn()
    try:
        await _wait_live(http, process)
        health = await http.get(f"{process.url}/health/ready")
        assert (health.status_code, health.json()["status"]) == (503, "unhealthy")
        assert (await http.get(f"{process.url}/health/live")).status_code == 200
        async with Api(process.url, "owner") as api:
            posted = await api.request("POST", "/v1/projects/p/chat/messages", {"message": "x"})
        assert (posted.status_code, posted.json()["code"]) == (503, "STORE_UNAVAILABLE")
        assert int(posted.headers["retry-after"]) >= 1
        target = f"/v1/projects/p/chat/stream?token={token('owner')}"
        accepts = {"Accept": "text/event-stream"}
        async with raw_request(process.port, target, headers=accepts) as stream:
            await stream.wait_end()
            assert (stream.status, stream.names) == (200, ["stream.refused"])
            assert b'"code":"STORE_UNAVAILABLE"' in stream.body
        async with raw_request(process.port, target) as plain:
            assert plain.status == 503
    finally:
        await process.stop()


async def _wait_live(http: httpx.AsyncClient, process: ServiceProcess) -> None:
    async def live() -> bool:
        assert process.is_running(), process.log_tail()
        try:
            return (await http.get(f"{process.url}/health/live")).status_code == 200
        except httpx.TransportError:
            return False

    await wait_until(live, timeout_s=30, what="a live process")


async def test_the_openapi_document_lists_every_route(
    services: Services, http: httpx.AsyncClient
) -> None:
    """§4: `GET /schema/openapi.json` has every documented path and method."""
    document = (await http.get(f"{services.a.url}/schema/openapi.json")).json()
    assert document["openapi"].startswith("3.")
    for path, methods in ROUTES.items():
        assert path in document["paths"], path
        assert methods <= set(document["paths"][path]), path


async def test_the_api_page_is_served(services: Services, http: httpx.AsyncClient) -> None:
    """§4: `/schema` is an HTML page."""
    response = await http.get(f"{services.a.url}/schema", follow_redirects=True)
    assert (response.status_code, response.headers["content-type"].split(";")[0]) == (
        200, "text/html",
    )  # fmt: skip
