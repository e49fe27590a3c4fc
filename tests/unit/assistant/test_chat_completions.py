"""The chat-completions client against a real server.

What the chunks say is in `test_completion_chunks.py`.
"""

from __future__ import annotations

import pytest

from service.assistant.assistants import AssistantError, Turn
from service.assistant.chat_completions import ChatCompletions
from streams.answers.pieces import Piece, part_piece, text_piece
from tests.support.completions_server import (
    DONE,
    CompletionsServer,
    call_chunk,
    chunk,
    delta_chunk,
)

KEY = "a-key-that-must-not-leak"


async def _answer(server: CompletionsServer, *, timeout_s: float = 5.0) -> list[Piece]:
    assistant = ChatCompletions(server.url, "a-model", KEY, timeout_s=timeout_s)
    try:
        return [piece async for piece in assistant.answer([Turn("user", "hello")])]
    finally:
        await assistant.close()


async def test_pieces_are_the_deltas_of_the_endpoint() -> None:
    """The request has model, key and turns; the answer is the text of the deltas."""
    async with CompletionsServer([chunk("one "), chunk("two"), DONE]) as server:
        assert await _answer(server) == [text_piece("one "), text_piece("two")]
    (asked,) = server.requests
    assert asked == {
        "model": "a-model", "stream": True, "messages": [{"role": "user", "content": "hello"}],
    }  # fmt: skip
    assert server.headers[0].startswith(b"POST /v1/chat/completions ")
    assert f"authorization: bearer {KEY}".encode() in server.headers[0].lower()


async def test_pieces_of_every_kind_come_in_their_order() -> None:
    """§5: what the model thinks, says and calls, in the order in which the endpoint sends it."""
    blocks = [
        delta_chunk(role="assistant", reasoning_content="Look "),
        delta_chunk(reasoning_content="it up."),
        chunk("I search. "),
        call_chunk(0, "call_a", "search", ""),
        call_chunk(0, None, None, '{"q":'),
        call_chunk(0, None, None, '"x"}'),
        chunk("Done."),
        DONE,
    ]
    async with CompletionsServer(blocks) as server:
        assert await _answer(server) == [
            part_piece("reasoning", {"text": "Look "}),
            part_piece("reasoning", {"text": "it up."}),
            text_piece("I search. "),
            part_piece("tool", {"id": "call_a", "name": "search", "text": ""}),
            part_piece("tool", {"id": "call_a", "name": "search", "text": '{"q":'}),
            part_piece("tool", {"id": "call_a", "name": "search", "text": '"x"}'}),
            text_piece("Done."),
        ]


async def test_every_answer_has_its_own_calls() -> None:
    """Ids are remembered within an answer, not for an endpoint."""
    async with CompletionsServer([call_chunk(0, None, "f", "{}"), DONE]) as server:
        assistant = ChatCompletions(server.url, "m", None, timeout_s=5)
        for _ in range(2):
            (piece,) = [each async for each in assistant.answer([Turn("user", "hello")])]
            assert piece == part_piece("tool", {"id": "call_0", "name": "f", "text": "{}"})
        await assistant.close()


@pytest.mark.parametrize("size", [1, 7, 1000])
async def test_blocks_may_be_split_anywhere(size: int) -> None:
    """A line ends only at a line feed: not at U+2028 or U+0085, not at a block's end."""
    text = "a\u2028b\u0085c é🧵"
    raw = b": a comment\r\n\r\n" + chunk(text).replace(b"\n", b"\r\n") + DONE
    blocks = [raw[start : start + size] for start in range(0, len(raw), size)]
    async with CompletionsServer(blocks) as server:
        assert "".join(piece.delta for piece in await _answer(server)) == text


@pytest.mark.parametrize(
    ("blocks", "status", "sentence"),
    [
        ([b"no"], 500, "status 500"),
        ([b"no"], 401, "status 401"),
        ([b"data: {nonsense\n\n"], 200, "another form"),
        ([b'data: {"error": {"message": "secret"}}\n\n'], 200, "reported an error"),
        ([chunk("half")], 200, "broke off"),
        ([b"x" * (1024 * 1024 + 1)], 200, "another form"),
    ],
)
async def test_failures_are_sentences_without_secrets(
    blocks: list[bytes], status: int, sentence: str
) -> None:
    """§5: a clear error without the key or the address."""
    async with CompletionsServer(blocks, status=status) as server:
        with pytest.raises(AssistantError, match=sentence) as caught:
            await _answer(server)
        assert KEY not in str(caught.value)
        assert server.url not in str(caught.value)


async def test_a_hanging_endpoint_times_out() -> None:
    """The timeout bounds the whole answer."""
    async with CompletionsServer([chunk("half"), DONE], pause_before=1) as server:
        with pytest.raises(AssistantError, match="in time"):
            await _answer(server, timeout_s=0.2)


async def test_a_refused_connection_is_an_error() -> None:
    """The error names the connection, not the address."""
    assistant = ChatCompletions("http://127.0.0.1:1/v1", "m", None, timeout_s=2)
    with pytest.raises(AssistantError, match="connection"):
        await anext(assistant.answer([Turn("user", "hello")]))
    await assistant.close()


async def test_the_setting_may_be_the_full_endpoint() -> None:
    """SEQSTREAM_ASSISTANT_URL is a base URL or the endpoint itself."""
    async with CompletionsServer([chunk("x"), DONE]) as server:
        assistant = ChatCompletions(f"{server.url}/chat/completions", "m", None, timeout_s=5)
        pieces = [piece async for piece in assistant.answer([Turn("user", "hello")])]
        assert pieces == [text_piece("x")]
        await assistant.close()
    assert server.headers[0].startswith(b"POST /v1/chat/completions ")
