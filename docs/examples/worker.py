"""A worker written against the library alone: no HTTP, no service.

    DATABASE_URL=… REDIS_URL=… python docs/examples/worker.py

It takes queued builds one after the other, says how far it is, and ends each. Readers see the
`build.status` entries as they come. Stop it with Ctrl-C; a build that it leaves unfinished is
taken up by another worker when its lease has run out.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import uuid

from streams import Build, EventLog, LeaseLost


async def carry_out(log: EventLog, build: Build) -> None:
    """Do the work of one build. Whoever lost the build must stop: another has it."""
    try:
        for number, step in enumerate(("read", "think", "write")):
            await log.builds.report(build, progress=100 * number / 3, step=step)
            await asyncio.sleep(0.1)  # the work
        await log.builds.finish(build, "completed", message=f"{len(build.request)} characters read")
    except LeaseLost:
        return


async def main() -> None:
    """Work for ever."""
    worker_id = f"example-{uuid.uuid4().hex[:8]}"
    queued = asyncio.Event()
    async with EventLog.open(os.environ["DATABASE_URL"], os.environ["REDIS_URL"]) as log:
        # A convenience: without it new builds are found by looking once a second.
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
