"""The assistant of a service that is given no other: it needs no network and no key."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Sequence

from service.assistant.assistants import Turn
from streams.answers.pieces import Piece, text_piece


class BuiltIn:
    """Repeats the question and a fixed plan, in small pieces like a model."""

    def __init__(self, pause_s: float = 0.02) -> None:
        self._pause_s = pause_s

    async def answer(self, turns: Sequence[Turn]) -> AsyncGenerator[Piece, None]:
        """Yield the answer word by word."""
        asked = " ".join(turns[-1].content.split())
        words = asked.split(" ")
        shown = asked if len(words) <= 40 else " ".join(words[:40]) + " …"
        plan = (
            f"You asked: {shown}\n\n"
            "A plan:\n1. Agree on what it is for.\n2. Make the smallest part that works.\n"
            "3. Show it and go on from there.\n\n"
            "(This is the built-in assistant; set SEQSTREAM_ASSISTANT_URL for a real one.)"
        )
        for word in re.findall(r"\s*\S+", plan):
            yield text_piece(word)
            await asyncio.sleep(self._pause_s)

    async def close(self) -> None:
        """Do nothing: it has no connections."""
