"""A worker written against the library alone: no HTTP, no service.

    DATABASE_URL=… REDIS_URL=… python docs/examples/worker.py

It claims queued builds one after the other, reports progress, and ends each. Readers get the
`build.status` entries as they are published. Stop it with Ctrl-C; another worker claims an
unfinished build when its lease has expired.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import uuid

from streams import Build, EventLog, LeaseLost


async def carry_out(log: EventLog, build: Build) -> None:
    """Do the work of one build. Stop when the lease is lost: another worker has the build."""
    try:
        for number, step in enumerate(("read", "think", "write")):
            await log.builds.report(build, progress=100 * number / 3, step=step)
            await asyncio.sleep(0.1)  # the work
        await log.builds.finish(build, "completed", message=f"{len(build.request)} characters read")
    except LeaseLost:
        return


async def main() -> None:
    """Work until cancelled."""
    worker_id = f"example-{uuid.uuid4().hex[:8]}"
    queued = asyncio.Event()
    async with EventLog.open(os.environ["DATABASE_URL"], os.environ["REDIS_URL"]) as log:
        # Only faster: without it, the loop below finds new builds within a second.
        hearing = asyncio.create_task(log.builds.hear(lambda *_: queued.set()))
        try:
            while True:
                queued.clear()
                for build in await log.builds.claim(worker_id, lease_s=30):
                    await carry_out(log, build)
                    queued.set()
                try:
                    async with asyncio.timeout(1):
                        await queued.wait()
                except TimeoutError:
                    pass
        finally:
            hearing.cancel()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
