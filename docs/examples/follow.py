"""Follow a project with the Python client, and send a message to it.

    SEQSTREAM_URL=… SEQSTREAM_TOKEN=… python docs/examples/follow.py PROJECT [AFTER]

Messages are printed once each and in order, over any number of reconnects, beginning after the
message AFTER (without it, with the first one). Stop it with Ctrl-C; the last printed seq is where
to go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys

from service.client import Client, ClientError, Message


async def main(project_id: str, after: int) -> None:
    """Send one message, then follow until cancelled."""
    async with Client(os.environ["SEQSTREAM_URL"], os.environ["SEQSTREAM_TOKEN"]) as client:
        # With an id of one's own a repeat adds nothing, also after a crash of this program.
        receipt = await client.send(project_id, "hello from Python", client_msg_id="follow-example")
        print(f"sent as seq {receipt.seq}")  # noqa: T201
        async for event in client.follow(project_id, after=after):
            if isinstance(event, Message):
                print(f"{event.seq} {event.user_id}: {event.text}", flush=True)  # noqa: T201
            elif event.name == "build.status":
                print(f"build: {event.data['status']}", flush=True)  # noqa: T201
            elif event.name == "stream.reset":
                print("begin anew: what was shown may no longer be there", flush=True)  # noqa: T201


if __name__ == "__main__":
    try:
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(main(sys.argv[1], int((sys.argv[2:] or ["0"])[0])))
    except ClientError as error:
        sys.exit(f"error: {error}")
