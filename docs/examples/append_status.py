"""Inform the readers of a project about work that is not one of its builds.

    DATABASE_URL=… REDIS_URL=… python docs/examples/append_status.py PROJECT USER

`append_status` puts a `build.status` entry into the project's stream and nothing into the
database: readers who connect after it was trimmed, or while Redis is away, do not see it.
"""

from __future__ import annotations

import asyncio
import os
import sys
import uuid

from streams import BuildContent, BuildStatus, EventLog
from streams.model.events import BuildState, format_now


async def main(project_id: str, user_id: str) -> None:
    """Publish the statuses of a build from its beginning to its end."""
    build_id, version_id = uuid.uuid4().hex, uuid.uuid4().hex
    steps: list[tuple[BuildState, float]] = [
        ("queued", 0), ("in_progress", 0), ("in_progress", 50), ("completed", 100),
    ]  # fmt: skip
    async with EventLog.open(os.environ["DATABASE_URL"], os.environ["REDIS_URL"]) as log:
        for status, progress in steps:
            entry_id = await log.append_status(
                project_id,
                BuildStatus(
                    project_id=project_id,
                    user_id=user_id,
                    status=status,
                    content=BuildContent(build_id, version_id, attempt=1, progress=progress),
                    timestamp=format_now(),
                    metadata={},
                ),
            )
            print(entry_id, status)  # noqa: T201


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
