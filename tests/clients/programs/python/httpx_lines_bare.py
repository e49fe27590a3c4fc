"""httpx alone, `aiter_lines`: what many write instead of taking a library."""

import asyncio
import json
import os

import httpx


async def main() -> None:
    async with httpx.AsyncClient() as client:
        async with client.stream("GET", os.environ["STREAM_URL"]) as response:
            fields: dict[str, str] = {}
            async for line in response.aiter_lines():
                name, _, value = line.partition(": ")
                if name:
                    fields[name] = value
                elif "data" in fields:
                    event = {"event": fields.get("event", "message"), "id": fields.get("id")}
                    print(json.dumps({**event, "data": fields["data"]}), flush=True)
                    fields = {}


asyncio.run(main())
