"""docs/protocol.md §4: the operator's limit on the text of a message."""

from __future__ import annotations

from pathlib import Path

from tests.acceptance.conftest import NewProject, Services
from tests.acceptance.error_form import checked_error
from tests.support.processes import ServiceProcess, service_environment


async def test_the_operator_may_lower_the_limit_on_texts(
    services: Services, new_project: NewProject, tmp_path: Path
) -> None:
    """§4: `SEQSTREAM_MAX_TEXT_BYTES` holds for single posts, batches and the assistant's flow."""
    environment = service_environment(
        services.database_url,
        services.redis.url,
        {"SEQSTREAM_MAX_TEXT_BYTES": "300", "SEQSTREAM_POSTS_PER_SECOND": "0"},
    )
    async with ServiceProcess("short", tmp_path, environment) as process:
        project = await new_project(process)
        long = {"message": "x" * 301}
        for path, body in (
            (project.messages, long),
            (f"{project.messages}/batch", {"messages": [{"message": "x"}, long]}),
            ("/v1/chat/unified", {"projectId": project.id, **long}),
        ):
            response = await project.api.request("POST", path, body)
            checked_error(response, 413, "PAYLOAD_TOO_LARGE")
        assert (await project.api.post(project.id, "x" * 300)).seq == 1
