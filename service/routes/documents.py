"""What the OpenAPI document says beside the routes' own types: errors, and the stream."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import (
    OpenAPIMediaType,
    OpenAPIResponse,
    Operation,
    Parameter,
    PathItem,
    Schema,
)


class ErrorBody(msgspec.Struct, omit_defaults=True):
    """The body of every error."""

    error: str
    code: str
    requestId: str  # noqa: N815
    details: Any = None


def _spec(description: str) -> ResponseSpec:
    return ResponseSpec(data_container=ErrorBody, description=description, generate_examples=False)


ERRORS: dict[int, ResponseSpec] = {
    400: _spec("VALIDATION_FAILED: details name the field"),
    401: _spec("UNAUTHENTICATED"),
    403: _spec("UNAUTHORIZED_PROJECT_ACCESS, or FORBIDDEN when a scope is missing"),
    404: _spec("NOT_FOUND"),
    408: _spec("The body did not arrive in time"),
    409: _spec("IDEMPOTENCY_MISMATCH, or the state of a build or an answer does not allow it"),
    413: _spec("PAYLOAD_TOO_LARGE"),
    415: _spec("UNSUPPORTED_MEDIA_TYPE"),
    429: _spec("RATE_LIMITED, with Retry-After"),
    503: _spec("STORE_UNAVAILABLE, with Retry-After"),
}

_TEXT = Schema(type="string")  # type: ignore[arg-type]


def _query(name: str, description: str) -> Parameter:
    return Parameter(name=name, param_in="query", schema=_TEXT, description=description)


def stream_path() -> PathItem:
    """The stream endpoint: a plain ASGI handler, which Litestar does not document by itself."""
    event_stream = OpenAPIMediaType(schema=_TEXT)
    return PathItem(
        get=Operation(
            tags=["stream"],
            operation_id="followProject",
            summary="Follow a project",
            description="Server-Sent Events with resume by Last-Event-ID; see the protocol.",
            parameters=[
                Parameter(name="project_id", param_in="path", required=True, schema=_TEXT),
                Parameter(
                    name="Last-Event-ID",
                    param_in="header",
                    schema=_TEXT,
                    description="The last seq that the client has",
                ),
                _query("lastEventId", "The same, where no header can be set"),
                _query("last_event_id", "The same"),
                _query("from_seq", "The same; 0 is from the beginning"),
                _query("tail", "1 to 200: begin with the newest so many messages"),
                _query("heartbeat", "2 to 60: seconds of silence before a heartbeat"),
                _query("token", "A stream token"),
            ],
            responses={
                "200": OpenAPIResponse(
                    description="The stream, or an in-band refusal",
                    content={"text/event-stream": event_stream},
                ),
                **{
                    str(status): OpenAPIResponse(
                        description=ERRORS[status].description,
                        content={
                            "application/json": OpenAPIMediaType(
                                schema=Schema(type="object")  # type: ignore[arg-type]
                            )
                        },
                    )
                    for status in (400, 401, 403, 404, 429, 503)
                },
            },
        )
    )
