"""aiohttp alone, reading lines: what many write instead of taking a library."""

import asyncio
import json
import os

import aiohttp


async def main() -> None:
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        async with session.get(os.environ["STREAM_URL"]) as response:
            fields: dict[str, str] = {}
            async for line in response.content:
                name, _, value = line.decode().rstrip("\r\n").partition(": ")
                if name:
                    fields[name] = value
                elif "data" in fields:
                    event = {"event": fields.get("event", "message"), "id": fields.get("id")}
                    print(json.dumps({**event, "data": fields["data"]}), flush=True)
                    fields = {}


asyncio.run(main())
