"""Errors as a client sees them (docs/protocol.md §4), from a real Litestar application."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

import httpx
import msgspec
import pytest
from litestar import Litestar, get, post
from litestar.exceptions import (
    HTTPException,
    InternalServerException,
    NotAuthorizedException,
    PermissionDeniedException,
    ServiceUnavailableException,
    TooManyRequestsException,
)
from litestar.params import FromPath, JSONBody, QueryParameter
from litestar.types import ASGIApp, Message
from prometheus_client import CollectorRegistry

from service.http import api_errors
from service.http.api_errors import AuthenticationError, FieldError
from service.http.error_answers import exception_handlers, with_request_id
from service.telemetry.metrics import Metrics
from streams.answers.answer_errors import (
    AnswerEnded,
    AnswerHeld,
    AnswerInProgress,
    AnswerNotFound,
    IndexGap,
    TooManyAnswers,
)
from streams.model.errors import ProjectExists

SECRET = "s3cret-value"


class Inner(msgspec.Struct, forbid_unknown_fields=True):
    """A part of a body."""

    n: Annotated[int, msgspec.Meta(ge=1)]


class Body(msgspec.Struct, forbid_unknown_fields=True):
    """A body with fields of each kind."""

    message: Annotated[str, msgspec.Meta(min_length=1)]
    mode: Literal["plan", "build"] = "plan"
    inner: Inner | None = None
    many: list[Inner] = []
    metadata: object = None


@post("/body")
async def take_body(data: JSONBody[Body]) -> str:
    """Take a body."""
    return data.message


@get("/query")
async def take_query(limit: Annotated[int, QueryParameter(ge=1, le=500)]) -> str:
    """Take a parameter."""
    return str(limit)


RAISED: dict[str, Exception] = {
    "validation": api_errors.validation_failed(FieldError("message", "is empty")),
    "unauthenticated": api_errors.unauthenticated(),
    "denied": api_errors.project_access_denied(),
    "forbidden": api_errors.forbidden("Only the owner may do this"),
    "gone": api_errors.not_found(),
    "exists": ProjectExists("p1"),
    "mismatch": api_errors.idempotency_mismatch(),
    "ended": AnswerEnded("the answer has ended"),
    "in_progress": AnswerInProgress("the answer is still being written"),
    "gap": IndexGap(7),
    "held": AnswerHeld("another writes this answer"),
    "no_answer": AnswerNotFound("no such answer"),
    "too_many": TooManyAnswers("too many answers are under way"),
    "large": api_errors.payload_too_large(65_536, "message"),
    "media": api_errors.unsupported_media_type(),
    "method": api_errors.method_not_allowed("GET"),
    "limited": api_errors.rate_limited(0.02),
    "store": api_errors.store_unavailable(2.5),
    "internal": api_errors.internal(),
    "bad_token": AuthenticationError("bad_token"),
    "bug": RuntimeError(SECRET),
    "bug_in_text": UnicodeDecodeError("utf-8", SECRET.encode(), 0, 1, SECRET),
    "framework_401": NotAuthorizedException(SECRET),
    "framework_403": PermissionDeniedException(SECRET),
    "framework_418": HTTPException(status_code=418, detail=SECRET),
    "framework_429": TooManyRequestsException(SECRET),
    "framework_500": InternalServerException(SECRET),
    "framework_503": ServiceUnavailableException(SECRET),
}


@get("/raise/{which:str}")
async def fail(which: FromPath[str]) -> str:
    """Raise the exception that the path names."""
    raise RAISED[which]


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(CollectorRegistry())


@pytest.fixture
def app(metrics: Metrics) -> ASGIApp:
    return with_request_id(
        Litestar(
            [take_body, take_query, fail],
            exception_handlers=exception_handlers(metrics),
            request_max_body_size=2000,
            logging_config=None,
            openapi_config=None,
        )
    )


@pytest.fixture
async def client(app: ASGIApp) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=app)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
        yield client


@pytest.mark.parametrize(
    "which, status, code, message, headers",
    [
        ("validation", 400, "VALIDATION_FAILED", "message: is empty", {}),
        (
            "unauthenticated",
            401,
            "UNAUTHENTICATED",
            "Authentication is required",
            {"www-authenticate": 'Bearer realm="seqstream"'},
        ),
        ("denied", 403, "UNAUTHORIZED_PROJECT_ACCESS", "Project access denied", {}),
        ("forbidden", 403, "FORBIDDEN", "Only the owner may do this", {}),
        ("gone", 404, "NOT_FOUND", "There is nothing here", {}),
        (
            "method",
            405,
            "METHOD_NOT_ALLOWED",
            "The method does not fit this address",
            {"allow": "GET"},
        ),
        ("exists", 403, "UNAUTHORIZED_PROJECT_ACCESS", "Project access denied", {}),
        (
            "mismatch",
            409,
            "IDEMPOTENCY_MISMATCH",
            "client_msg_id was used before with another content",
            {},
        ),
        ("ended", 409, "ANSWER_ENDED", "The answer has ended", {}),
        ("in_progress", 409, "ANSWER_IN_PROGRESS", "The answer is still being written", {}),
        ("gap", 409, "INDEX_GAP", "The next index is 7", {}),
        ("held", 403, "FORBIDDEN", "The answer is written by another", {}),
        ("no_answer", 404, "NOT_FOUND", "There is no such answer in this project", {}),
        (
            "too_many",
            429,
            "RATE_LIMITED",
            "Too many answers are under way",
            {"retry-after": "5"},
        ),
        (
            "large",
            413,
            "PAYLOAD_TOO_LARGE",
            "message is larger than 65536 bytes",
            {"connection": "close"},
        ),
        ("media", 415, "UNSUPPORTED_MEDIA_TYPE", "The body must be application/json", {}),
        ("limited", 429, "RATE_LIMITED", "Too many requests", {"retry-after": "1"}),
        (
            "store",
            503,
            "STORE_UNAVAILABLE",
            "The store is not available; try again",
            {"retry-after": "3"},
        ),
        ("internal", 500, "INTERNAL", "Something went wrong here", {}),
    ],
)
async def test_each_code(
    client: httpx.AsyncClient,
    which: str,
    status: int,
    code: str,
    message: str,
    headers: dict[str, str],
) -> None:
    """§4: each error has its status, code, sentence and headers."""
    answer = await client.get(f"/raise/{which}")
    body = answer.json()
    assert (answer.status_code, body["code"], body["error"]) == (status, code, message)
    assert headers.items() <= dict(answer.headers).items()
    assert answer.headers["content-type"] == "application/json"


async def test_an_error_has_only_its_documented_fields(client: httpx.AsyncClient) -> None:
    """§4: error, code and requestId, and details if there are any."""
    answer = await client.get("/raise/denied")
    assert answer.json() == {
        "error": "Project access denied",
        "code": "UNAUTHORIZED_PROJECT_ACCESS",
        "requestId": answer.headers["x-request-id"],
    }


@pytest.mark.parametrize(
    "content, field, message",
    [
        (b"", "body", "is required"),
        (b"{", "body", "is not valid JSON"),
        (b'{"message":"\xff"}', "body", "is not valid JSON"),
        (b'{"message":"a","metadata":' + b"[" * 1900, "body", "is nested too deep"),
        (b"[1]", "body", "Expected `object`, got `array`"),
        (b"{}", "message", "is required"),
        (b'{"message":5}', "message", "Expected `str`, got `int`"),
        (b'{"message":""}', "message", "Expected `str` of length >= 1"),
        (b'{"message":"a","other":1}', "other", "is not known"),
        (b'{"message":"a","mode":"s3cret-value"}', "mode", "is not one of the allowed values"),
        (b'{"message":"a","inner":{"n":0}}', "inner.n", "Expected `int` >= 1"),
        (b'{"message":"a","inner":{}}', "inner.n", "is required"),
        (b'{"message":"a","many":[{"n":1},{"n":0}]}', "many[1].n", "Expected `int` >= 1"),
    ],
    ids=lambda value: value[:40].decode("latin-1") if isinstance(value, bytes) else None,
)
async def test_bad_body_names_its_field(
    client: httpx.AsyncClient, content: bytes, field: str, message: str
) -> None:
    """§4: 400 VALIDATION_FAILED, details name the field."""
    answer = await client.post(
        "/body", content=content, headers={"content-type": "application/json"}
    )
    assert answer.status_code == 400
    assert answer.json()["code"] == "VALIDATION_FAILED"
    assert answer.json()["details"] == [{"field": field, "message": message}]
    assert SECRET not in answer.text


@pytest.mark.parametrize(
    "query, field, message",
    [
        ("", "limit", "is required"),
        ("limit=0", "limit", "Expected `int` >= 1"),
        ("limit=501", "limit", "Expected `int` <= 500"),
        ("limit=many", "limit", "Expected `int`, got `str`"),
    ],
)
async def test_bad_parameter_is_named_and_the_url_not_repeated(
    client: httpx.AsyncClient, query: str, field: str, message: str
) -> None:
    """§4: details name the field; a token in the query is not sent back."""
    answer = await client.get(f"/query?token={SECRET}&{query}")
    assert answer.status_code == 400
    assert answer.json()["details"] == [{"field": field, "message": message}]
    assert SECRET not in answer.text


async def test_unknown_address(client: httpx.AsyncClient) -> None:
    """§4: 404 NOT_FOUND, in the form of every error."""
    answer = await client.get("/nowhere")
    assert (answer.status_code, answer.json()["code"]) == (404, "NOT_FOUND")


async def test_wrong_method_lists_the_right_ones(client: httpx.AsyncClient) -> None:
    """§4: 405, with the allowed methods in `Allow`."""
    answer = await client.delete("/body")
    assert (answer.status_code, answer.json()["code"]) == (405, "METHOD_NOT_ALLOWED")
    assert "POST" in answer.headers["allow"]


@pytest.mark.parametrize("announced", [True, False])
async def test_body_above_the_limit(client: httpx.AsyncClient, announced: bool) -> None:
    """§4: 413 with and without Content-Length; the connection closes and the rest is not read."""

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b" " * 1000

    answer = await client.post("/body", content=b" " * 3000 if announced else pieces())
    assert (answer.status_code, answer.json()["code"]) == (413, "PAYLOAD_TOO_LARGE")
    assert answer.headers["connection"] == "close"


@pytest.mark.parametrize(
    "which, status, code",
    [
        ("framework_401", 401, "UNAUTHENTICATED"),
        ("framework_403", 403, "FORBIDDEN"),
        ("framework_418", 418, "VALIDATION_FAILED"),
        ("framework_429", 429, "RATE_LIMITED"),
        ("framework_500", 500, "INTERNAL"),
        ("framework_503", 503, "STORE_UNAVAILABLE"),
    ],
)
async def test_errors_of_the_framework(
    client: httpx.AsyncClient, which: str, status: int, code: str
) -> None:
    """§4: they have the form of every error, and nothing of the framework's text."""
    answer = await client.get(f"/raise/{which}")
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert SECRET not in answer.text


@pytest.mark.parametrize("which", ["bug", "bug_in_text"])
async def test_bug_is_logged_once_and_not_disclosed(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture, which: str
) -> None:
    """§4: never a stack trace; 500 INTERNAL with the id that is in the log."""
    with caplog.at_level(logging.INFO):
        answer = await client.get(f"/raise/{which}?token=t0ken")
    assert (answer.status_code, answer.json()["code"]) == (500, "INTERNAL")
    assert SECRET not in answer.text
    [record] = [record for record in caplog.records if record.name.startswith("service")]
    assert record.exc_info is not None
    assert record.exc_info[1] is RAISED[which]
    assert vars(record)["request_id"] == answer.json()["requestId"]
    assert "t0ken" not in str(vars(record))


@pytest.mark.parametrize("which", ["denied", "gone", "limited", "store", "bad_token"])
async def test_expected_refusal_is_not_logged(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture, which: str
) -> None:
    """Clients cannot fill the log with refused requests."""
    with caplog.at_level(logging.INFO):
        await client.get(f"/raise/{which}")
    assert [record for record in caplog.records if record.name.startswith("service")] == []


async def test_failed_authentication_is_401_and_counted(
    client: httpx.AsyncClient, metrics: Metrics
) -> None:
    """§3, §9: 401 UNAUTHENTICATED; the reason is only a metric's label."""
    answer = await client.get("/raise/bad_token")
    assert (answer.status_code, answer.json()["code"]) == (401, "UNAUTHENTICATED")
    assert "bad_token" not in answer.text
    assert b'auth_failures_total{reason="bad_token"} 1.0' in metrics.render()[0]


async def test_client_that_went_away_is_not_logged_as_an_error(
    app: ASGIApp, caplog: pytest.LogCaptureFixture
) -> None:
    """A client that leaves in the middle of its post is no failure of the service."""
    sent: list[Message] = []

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope: Any = {
        "type": "http",
        "method": "POST",
        "path": "/body",
        "raw_path": b"/body",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json"), (b"content-length", b"5")],
    }
    with caplog.at_level(logging.INFO):
        await app(scope, receive, send)
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
    assert sent[0]["status"] == 400  # type: ignore[typeddict-item]
