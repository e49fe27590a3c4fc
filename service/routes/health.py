"""Health and metrics, for operators. No authentication: nothing here names a project or a user."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from litestar import MediaType, Request, Response, get

from service.context import context_of


class Health(msgspec.Struct):
    """`degraded`: Redis is away or the schema is newer, and everything durable still works."""

    status: Literal["healthy", "degraded", "unhealthy"]
    checks: dict[str, str]


@get("/health", tags=["operation"])
async def health(request: Request[Any, Any, Any]) -> Response[Health]:
    """Return the known state of the servers and of the process; no server is queried."""
    context = context_of(request)
    log = context.log
    schema = log.postgres.schema
    stuck = log.tails.lanes.stuck()
    process: str | None = None
    if log.failed_part is not None:
        process = f"{log.failed_part} ended"
    if context.streams.draining:
        process = "draining"
    lanes = f"{len(stuck)} not reading" if stuck else None
    status: Literal["healthy", "degraded", "unhealthy"] = "healthy"
    if log.health.redis_problem or lanes or schema.note:
        status = "degraded"
    if log.postgres.problem or schema.problem or process:
        status = "unhealthy"
    checks = {
        "postgres": log.postgres.problem,
        "schema": schema.problem or schema.note,
        "redis": log.health.redis_problem,
        "process": process,
        "lanes": lanes,
    }
    shown = {name: problem or "ok" for name, problem in checks.items()}
    return Response(Health(status, shown), status_code=503 if status == "unhealthy" else 200)


@get("/health/live", tags=["operation"])
async def live(request: Request[Any, Any, Any]) -> Response[Health]:
    """Tell whether the process should go on: 503 asks for a restart."""
    failed = context_of(request).log.failed_part
    if failed is not None:
        return Response(Health("unhealthy", {"process": f"{failed} ended"}), status_code=503)
    return Response(Health("healthy", {"process": "ok"}), status_code=200)


@get("/health/ready", tags=["operation"])
async def ready(request: Request[Any, Any, Any]) -> Response[Health]:
    """Tell whether the process should get requests: the same as `/health`."""
    answer: Response[Health] = await health.fn(request)
    return answer


@get("/metrics", tags=["operation"], media_type=MediaType.TEXT)
async def metrics(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Return the metrics in Prometheus's text format."""
    body, content_type = context_of(request).metrics.render()
    return Response(body, media_type=content_type)
