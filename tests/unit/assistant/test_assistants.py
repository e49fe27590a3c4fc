"""The built-in assistant, and the conversation that every assistant is given."""

from __future__ import annotations

from service.assistant.answer_writer import conversation
from service.assistant.assistants import Turn
from service.assistant.built_in_assistant import BuiltIn
from streams.model.events import NO_METADATA, Content, Message, MessageType


async def test_the_built_in_assistant_needs_no_network() -> None:
    """It repeats the question, in several pieces."""
    pieces = [piece async for piece in BuiltIn(0).answer([Turn("user", "a\n house")])]
    assert len(pieces) > 5
    assert "".join(piece.delta for piece in pieces).startswith("You asked: a house\n\nA plan:")


def _message(seq: int, text: str, kind: MessageType) -> Message:
    content = Content(text, kind, "plan", "client")
    return Message(seq, f"m{seq}", None, "p", "u", content, "t", NO_METADATA)


def test_a_conversation_is_in_order_and_bounded() -> None:
    """The newest turns that fit, oldest first, then the question."""
    newest_first = [
        _message(4, "d", "user"),
        _message(3, "c", "assistant"),
        _message(2, "b", "user"),
        _message(1, "x" * 40_000, "user"),
    ]
    assert conversation(newest_first) == [
        Turn("user", "b"), Turn("assistant", "c"), Turn("user", "d"),
    ]  # fmt: skip
