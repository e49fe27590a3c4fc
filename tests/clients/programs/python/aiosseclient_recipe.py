"""aiosseclient in a loop that passes on the last id; it does not hand on `retry`."""

import asyncio
import json
import os
import sys

import aiohttp
from aiosseclient import aiosseclient


async def main() -> None:
    last_id = None
    while True:
        try:
            async for event in aiosseclient(os.environ["STREAM_URL"], last_id=last_id):
                last_id = event.id or last_id
                line = {"event": event.event, "id": event.id, "data": event.data}
                print(json.dumps(line), flush=True)
        except aiohttp.ClientError as error:
            print(repr(error), file=sys.stderr)
        await asyncio.sleep(1)


asyncio.run(main())
