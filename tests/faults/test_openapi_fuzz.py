"""Every response conforms to the OpenAPI document, and none is a 5xx.

schemathesis generates requests from the document of the running service; half of them go to an
existing project. For the stream, which never ends, only the cursor is fuzzed.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from service.operate.embedded import PostgresServer, RedisServer
from tests.support.api import Api
from tests.support.processes import ServiceProcess, service_environment
from tests.support.signing import token

# A timeout by thread would end pytest at once and leave the servers running.
pytestmark = pytest.mark.timeout(180, method="signal")

_USER = "fuzzer"
_CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
_OPERATIONS = [
    ("POST", "/v1/projects"),
    ("GET", "/v1/projects/{project_id}"),
    ("PUT", "/v1/projects/{project_id}/members/{user_id}"),
    ("DELETE", "/v1/projects/{project_id}/members/{user_id}"),
    ("POST", "/v1/projects/{project_id}/stream-tokens"),
    ("GET", "/v1/projects/{project_id}/chat/messages"),
    ("POST", "/v1/projects/{project_id}/chat/messages"),
    ("POST", "/v1/projects/{project_id}/chat/messages/batch"),
    ("POST", "/v1/chat/unified"),
    ("POST", "/v1/projects/{project_id}/answers"),
    ("POST", "/v1/projects/{project_id}/answers/{message_id}/deltas"),
    ("POST", "/v1/projects/{project_id}/answers/{message_id}/end"),
    ("POST", "/v1/projects/{project_id}/answers/{message_id}/regenerate"),
    ("GET", "/health"),
    ("GET", "/health/live"),
    ("GET", "/health/ready"),
    ("GET", "/metrics"),
]
_EXAMPLES = 60
_ANSWERS = "/v1/projects/{project_id}/answers"
_FEWER_EXAMPLES = (
    {}
    if os.environ.get("SEQSTREAM_ALL_FAULTS")
    else {
        # This request waits for the built-in assistant: most of a second for an answer.
        "/v1/chat/unified": 12,
        _ANSWERS: 25,
        f"{_ANSWERS}/{{message_id}}/deltas": 15,
        f"{_ANSWERS}/{{message_id}}/end": 15,
        f"{_ANSWERS}/{{message_id}}/regenerate": 15,
    }
)


def _fuzzing(examples: int = _EXAMPLES) -> settings:
    return settings(
        max_examples=examples,
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )


@pytest.fixture(scope="module")
async def fuzzed(
    postgres: PostgresServer,
    template_database: str,
    redis_server: RedisServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[ServiceProcess]:
    """One service for all tests: its responses must not depend on earlier requests."""
    database_url = postgres.create_database("fuzzed", template=template_database)
    environment = service_environment(database_url, redis_server.url, None)
    process = ServiceProcess("service-1", tmp_path_factory.mktemp("fuzzed"), environment)
    try:
        await process.start()
        yield process
    finally:
        await process.stop()


@pytest.fixture
async def project(fuzzed: ServiceProcess) -> str:
    """A project with one message, for one test."""
    project_id = f"known-{uuid.uuid4().hex}"
    async with Api(fuzzed.url, _USER) as api:
        await api.create_project(project_id)
        await api.post(project_id, "hello", "c1")
    return project_id


@pytest.mark.parametrize(("method", "path"), _OPERATIONS)
def test_answers_are_as_documented(
    method: str, path: str, fuzzed: ServiceProcess, project: str
) -> None:
    """docs/protocol.md §4: status, content type and schema of every response; never a 5xx."""
    schema = schemathesis.openapi.from_url(f"{fuzzed.url}/schema/openapi.json")
    operation = schema[path][method]
    headers = {
        "Authorization": f"Bearer {token(_USER, scope='read write worker')}",
    }

    @_fuzzing(_FEWER_EXAMPLES.get(path, _EXAMPLES))
    @given(case=operation.as_strategy(), known=st.booleans())
    def ask(case: schemathesis.Case[Any], known: bool) -> None:
        if known and "project_id" in case.path_parameters:
            case.path_parameters["project_id"] = project
        # Sent twice: a repeat may have another response.
        for _ in range(2):
            response = case.call(headers=headers, timeout=10)
            case.validate_response(response, checks=_CHECKS, headers=headers)

    ask()


@pytest.fixture
def http() -> Iterator[httpx.Client]:
    """A plain client."""
    with httpx.Client(verify=False, trust_env=False, timeout=10) as client:
        yield client


# Characters that httpx sends in a header; it refuses all others.
_header_text = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40)
_cursor = st.one_of(
    _header_text,
    st.integers().map(str),
    st.integers(0, 3).map(lambda n: f"{n}-{n}"),
    st.sampled_from(["1", "0", "-1", "1.0", "01", "1e0", " 1", "0x1", "9" * 400, "NaN", "٣"]),
)


def test_any_cursor_opens_a_stream(
    fuzzed: ServiceProcess, project: str, http: httpx.Client
) -> None:
    """docs/protocol.md §6: an unusable cursor gets `stream.reset`, never an HTTP error."""
    url = f"{fuzzed.url}/v1/projects/{project}/chat/stream"

    @_fuzzing()
    @given(
        cursor=_cursor,
        place=st.sampled_from(["header", "lastEventId", "last_event_id", "from_seq"]),
    )
    def ask(cursor: str, place: str) -> None:
        headers = {"Accept": "text/event-stream"}
        query = {"token": token(_USER)}
        if place == "header":
            headers["Last-Event-ID"] = cursor.encode("ascii", "ignore").decode().strip()
        else:
            query[place] = cursor
        seen = b""
        with http.stream("GET", url, params=query, headers=headers) as response:
            assert response.status_code == 200, response.read()
            for chunk in response.iter_raw():
                seen += chunk
                if b"event: stream.live" in seen:
                    break
        assert seen.startswith(b"event: stream.open\n")
        assert seen.count(b"event: stream.open") == 1

    ask()
