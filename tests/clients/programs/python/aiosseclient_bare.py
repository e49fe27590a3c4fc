"""aiosseclient as its README shows it: one connection."""

import asyncio
import json
import os

from aiosseclient import aiosseclient


async def main() -> None:
    async for event in aiosseclient(os.environ["STREAM_URL"]):
        print(json.dumps({"event": event.event, "id": event.id, "data": event.data}), flush=True)


asyncio.run(main())
