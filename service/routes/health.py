"""Health and metrics, for operators. No authentication: nothing here names a project or a user."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from litestar import MediaType, Request, Response, get

from service.context import context_of


class Health(msgspec.Struct):
    """`degraded`: Redis is away, and everything durable still works."""

    status: Literal["healthy", "degraded", "unhealthy"]
    checks: dict[str, str]


@get("/health", tags=["operation"])
async def health(request: Request[Any, Any, Any]) -> Response[Health]:
    """Ask the servers and the process's own parts."""
    context = context_of(request)
    found = await context.log.check()
    checks = {name: problem or "ok" for name, problem in found.items()}
    checks["process"] = "ok"
    if context.log.failed_part is not None:
        checks["process"] = f"{context.log.failed_part} ended"
    if context.streams.draining:
        checks["process"] = "draining"
    stuck = context.log.tails.lanes.stuck()
    checks["lanes"] = "ok" if not stuck else f"{len(stuck)} not reading"
    status: Literal["healthy", "degraded", "unhealthy"] = "healthy"
    if found["redis"] is not None or stuck:
        status = "degraded"
    if found["postgres"] is not None or checks["process"] != "ok":
        status = "unhealthy"
    return Response(Health(status, checks), status_code=503 if status == "unhealthy" else 200)


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
