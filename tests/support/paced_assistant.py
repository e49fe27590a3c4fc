"""A completions endpoint that answers each question with a text of its own, at a steady rate.

The text follows from the question alone, so that a test knows what an answer has to say, and what
of it had been sent at any moment.
"""

from __future__ import annotations

import asyncio
import random
import time
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.support.completions_server import DONE, CompletionsServer, chunk, delta_chunk
from tests.support.writer import SPICE

Script = Callable[[str], Sequence[str]]
"""Returns the pieces of the answer to a question."""


def spiced_script(question: str) -> list[str]:
    """Return a short answer with text that a faulty encoder would break."""
    chosen = random.Random(question)
    pieces = [f"{question[:20]} {number} " for number in range(chosen.randrange(15, 50))]
    return [piece + chosen.choice(("", "", *SPICE)) for piece in pieces]


@dataclass
class Sending:
    """What was sent in answer to one request: characters, and when the text was so long."""

    question: str
    at_s: list[float] = field(default_factory=list)
    characters: list[int] = field(default_factory=list)

    def sent_until(self, moment_s: float) -> int:
        """Return how many characters had been sent at a moment."""
        number = bisect_right(self.at_s, moment_s)
        return self.characters[number - 1] if number else 0

    def sent_at_s(self, characters: int) -> float:
        """Return when a text of so many characters had been sent."""
        return self.at_s[min(bisect_right(self.characters, characters - 1), len(self.at_s) - 1)]


class PacedAssistant(CompletionsServer):
    """Sends `pieces_per_s` of what `script` returns for the last turn of a request.

    Before every `thinks_every`-th piece comes one of its reasoning, which is not a part of the
    text; never with 0.
    """

    def __init__(
        self,
        script: Script = spiced_script,
        *,
        pieces_per_s: float = 50.0,
        thinks_every: int = 5,
    ) -> None:
        super().__init__()
        self.sendings: list[Sending] = []
        self.script = script
        self.pieces_per_s = pieces_per_s
        self.thinks_every = thinks_every

    async def _reply(
        self, request: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        sending = Sending(request["messages"][-1]["content"])
        self.sendings.append(sending)
        begun_s, characters = time.monotonic(), 0
        for number, piece in enumerate(self.script(sending.question)):
            # By the beginning: what a late turn of the loop delayed is caught up.
            await asyncio.sleep(max(0.0, begun_s + number / self.pieces_per_s - time.monotonic()))
            if reader.at_eof():
                return
            if self.thinks_every and number % self.thinks_every == 0:
                writer.write(delta_chunk(reasoning_content=f"{number}: what next? "))
            writer.write(chunk(piece))
            await writer.drain()
            characters += len(piece)
            sending.at_s.append(time.monotonic())
            sending.characters.append(characters)
        writer.write(DONE)
        await writer.drain()
