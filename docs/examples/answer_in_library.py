"""Answer a message with the library alone: no HTTP, no service.

    DATABASE_URL=… REDIS_URL=… python docs/examples/answer_in_library.py PROJECT MESSAGE USER

Readers of the project see the answer while it is written; MESSAGE is the id of the message that is
answered. Should this process die, another process with an `EventLog` ends the answer as failed.
"""

from __future__ import annotations

import asyncio
import os
import sys

from streams import EventLog


async def main(project_id: str, message_id: str, user_id: str) -> None:
    """Think, write, and end."""
    async with EventLog.open(os.environ["DATABASE_URL"], os.environ["REDIS_URL"]) as log:
        # A member's stop leaves the block; an exception ends the answer as failed.
        async with log.answer(project_id, reply_to=message_id, user_id=user_id) as answer:
            await answer.write_part("reasoning", {"text": "They want to see an answer."})
            for word in ("Written ", "with ", "the ", "library."):
                await answer.write(word)
                await asyncio.sleep(0.1)  # the model
        print(answer.message_id)  # noqa: T201


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:4]))
