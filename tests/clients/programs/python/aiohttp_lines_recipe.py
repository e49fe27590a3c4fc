"""aiohttp reading lines, in a loop that resumes."""

import asyncio
import json
import os
import sys

import aiohttp


async def follow(session: aiohttp.ClientSession) -> None:
    last_id, pause_s = "", 1.0
    while True:
        headers = {"Accept": "text/event-stream"}
        if last_id:
            headers["Last-Event-ID"] = last_id
        try:
            async with session.get(os.environ["STREAM_URL"], headers=headers) as response:
                fields: dict[str, str] = {}
                async for line in response.content:
                    name, _, value = line.decode().rstrip("\r\n").partition(": ")
                    if name:
                        fields[name] = value
                    elif "data" in fields:
                        last_id = fields.get("id", last_id)
                        pause_s = int(fields.get("retry", pause_s * 1000)) / 1000
                        event = {"event": fields.get("event", "message"), "id": fields.get("id")}
                        print(json.dumps({**event, "data": fields["data"]}), flush=True)
                        fields = {}
        except (aiohttp.ClientError, TimeoutError) as error:
            print(repr(error), file=sys.stderr)
        await asyncio.sleep(pause_s)


async def main() -> None:
    # A read timeout above the heartbeat's interval finds dead connections.
    timeout = aiohttp.ClientTimeout(total=None, sock_read=45)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        await follow(session)


asyncio.run(main())
