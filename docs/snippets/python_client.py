"""Send a message, and print each message of the project once, in order, over any reconnects."""

import asyncio
import os

from service.client import Client


async def main() -> None:
    async with Client(os.environ["SEQSTREAM_URL"], os.environ["SEQSTREAM_TOKEN"]) as client:
        await client.send("demo", "hello", client_msg_id="first")
        async for event in client.follow("demo", after=0, events=["message.new"]):
            print(event.seq, event.data["content"]["text"], flush=True)


asyncio.run(main())
