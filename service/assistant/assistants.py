"""What an assistant of plan mode is: it turns a conversation into the pieces of an answer.

`answer_writer.py` makes an answer of them. The assistants are in files of their own; which of them
a service has is decided in `assistant_selection.py`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Literal, Protocol

import msgspec

from streams.answers.pieces import Piece

Role = Literal["user", "assistant", "system"]


class Turn(msgspec.Struct, frozen=True):
    """One message of a conversation, in the form that an endpoint expects."""

    role: Role
    content: str


class AssistantError(Exception):
    """The answer failed or broke off. The text is one sentence for the user.

    It never contains a key, an address or text from an endpoint.
    """


class Assistant(Protocol):
    """Answers conversations. Several calls may run at once."""

    def answer(self, turns: Sequence[Turn]) -> AsyncGenerator[Piece, None]:
        """Yield the pieces of an answer to the last turn. Raises `AssistantError`."""

    async def close(self) -> None:
        """Close the connections."""
