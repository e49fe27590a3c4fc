"""What chunks of chat completions say, and what is no chunk, with endpoints that may be hostile."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.assistant.assistants import AssistantError
from service.assistant.completion_chunks import ChunkReader
from streams.answers.pieces import MAX_PIECE_BYTES, Piece, joined, part_piece, text_piece


def pieces_of(*deltas: object) -> list[Piece]:
    """Return the pieces of an answer with these deltas."""
    reader = ChunkReader()
    chunks = [msgspec.json.encode({"choices": [{"delta": delta}]}) for delta in deltas]
    return [piece for chunk in chunks for piece in reader.pieces(chunk)]


def call(name: str, arguments: object) -> dict[str, object]:
    return {"tool_calls": [{"index": 0, "function": {"name": name, "arguments": arguments}}]}


def called(call_id: str, name: str, text: str) -> Piece:
    return part_piece("tool", {"id": call_id, "name": name, "text": text})


THOUGHT = part_piece("reasoning", {"text": "hm"})


@pytest.mark.parametrize(
    ("delta", "pieces"),
    [
        ({"content": "a"}, [text_piece("a")]),
        ({"reasoning_content": "hm"}, [THOUGHT]),
        ({"reasoning": "hm"}, [THOUGHT]),
        ({"reasoning_content": "hm", "reasoning": "hm"}, [THOUGHT]),
        ({"reasoning_content": "", "reasoning": "hm"}, [THOUGHT]),
        ({"reasoning_content": None, "reasoning": {"effort": "high"}}, []),
        ({"content": "a", "reasoning": "hm"}, [THOUGHT, text_piece("a")]),
        ({"content": None, "refusal": "no"}, [text_piece("no")]),
        ({"content": "a", "refusal": False}, [text_piece("a")]),
        ({"role": "assistant", "content": "", "tool_calls": []}, []),
        ({"content": None, "tool_calls": None, "refusal": None}, []),
        (None, []),
        (
            {
                "content": [
                    {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
                    {"type": "reference", "reference_ids": [1]},
                    {"type": "text", "text": "a"},
                ]
            },
            [THOUGHT, text_piece("a")],
        ),
        (
            {"tool_calls": [{"id": 7, "type": "function", "function": {"name": "f"}}]},
            [called("7", "f", "")],
        ),
        ({"tool_calls": [{"index": 0, "id": "a", "function": None}]}, []),
        (call("f", {"n": 1.0}), [called("call_0", "f", '{"n":1.0}')]),
        (call("f", None), [called("call_0", "f", "")]),
    ],
)  # fmt: skip
def test_a_delta_is_read_in_the_forms_that_endpoints_send(
    delta: object, pieces: list[Piece]
) -> None:
    """§5: text, reasoning and tool calls; what an answer does not show is left out."""
    assert pieces_of(delta) == pieces


@pytest.mark.parametrize("chunk", [b'{"choices":[]}', b'{"choices":null}', b"{}", b'{"usage":{}}'])
def test_a_chunk_without_a_delta_says_nothing(chunk: bytes) -> None:
    """The first of Azure, and the last one with the usage."""
    assert ChunkReader().pieces(chunk) == []


def test_a_call_of_several_deltas_is_one_part() -> None:
    """§5: its fragments join by the rule for pieces."""
    pieces = pieces_of(
        call("f", '{"a":'), {"tool_calls": [{"index": 0, "function": {"arguments": "1}"}}]}
    )
    assert joined(pieces) == [called("call_0", "f", '{"a":1}')]


@pytest.mark.parametrize(
    "chunk",
    [
        b"[]",
        b"null",
        b'{"choices":{}}',
        b'{"choices":[null]}',
        b'{"choices":[{"delta":[]}]}',
        b'{"choices":[{"delta":{"content":5}}]}',
        b'{"choices":[{"delta":{"content":{"text":"a"}}}]}',
        b'{"choices":[{"delta":{"content":["a"]}}]}',
        b'{"choices":[{"delta":{"content":[{"type":"text","text":5}]}}]}',
        b'{"choices":[{"delta":{"content":NaN}}]}',
        b'{"choices":[{"delta":{"content":"\\ud800"}}]}',
        b'{"choices":[{"delta":{"content":"\xff"}}]}',
        b'{"choices":[{"delta":{"reasoning":NaN}}]}',
        b'{"choices":[{"delta":{"reasoning":"\\ud800"}}]}',
        b'{"choices":[{"delta":{"tool_calls":{}}}]}',
        b'{"choices":[{"delta":{"tool_calls":["f"]}}]}',
        b'{"choices":[{"delta":{"tool_calls":[{"index":"0"}]}}]}',
        b'{"choices":[{"delta":{"tool_calls":[{"id":["a"]}]}}]}',
        b'{"choices":[{"delta":{"tool_calls":[{"id":' + b"9" * 5000 + b"}]}}]}",
        b'{"choices":[{"delta":{"tool_calls":[{"function":"f"}]}}]}',
        b'{"choices":[{"delta":{"tool_calls":[{"function":{"name":5}}]}}]}',
        b'{"choices":[{"delta":{"tool_calls":[{"function":{"name":"f","arguments":[1]}}]}}]}',
        b'{"choices":[{"delta":{"tool_calls":[{"function":{"name":"f","arguments":{"a":NaN}}}]}}]}',
        b'{"choices":[{"delta":{"tool_calls":[{"function":{"name":"f","arguments":{"a":"\xff"}}}]}}]}',
        b'{"choices":[{"delta":{"reasoning":' + b"[" * 100_000 + b"]" * 100_000 + b"}}]}",
    ],
)  # fmt: skip
def test_another_form_ends_the_answer(chunk: bytes) -> None:
    """In what the answer consists of: without it the answer would have a hole that nobody sees."""
    with pytest.raises(AssistantError, match="another form"):
        ChunkReader().pieces(chunk)


def test_a_long_text_is_split_into_pieces_that_join() -> None:
    """A whole call at once is larger than a piece may be, with JSON escapes still more so."""
    text = "\x01" * 30_000
    pieces = pieces_of(call("f" * 1000, text), {"reasoning": text})
    assert max(len(piece.data) for piece in pieces) <= MAX_PIECE_BYTES
    tool, reasoning = (msgspec.json.decode(piece.data)["text"] for piece in joined(pieces))
    assert tool == reasoning == text


def test_a_nul_is_in_no_piece() -> None:
    """Postgres can store it neither as text nor in JSON."""
    nul = "a\x00b"
    pieces = pieces_of(
        {"content": nul, "reasoning": nul, "refusal": nul},
        {"tool_calls": [{"id": nul, "function": {"name": nul, "arguments": nul}}]},
        {"tool_calls": [{"id": "x", "function": {"name": "f", "arguments": {nul: nul}}}]},
    )
    for piece in pieces:
        value = piece.delta if piece.kind == "text" else msgspec.json.decode(piece.data)
        assert "\x00" not in str(value)
        assert "\\u0000" not in piece.body or "\\\\u0000" in piece.body


_ANY = st.sampled_from(
    [None, True, 0, 1.5, "", "a", "\x00", [], ["a"], {}, {"a": 1}, [{"type": "text", "text": "a"}]]
)
_FUNCTIONS = st.fixed_dictionaries({}, optional={"name": _ANY, "arguments": _ANY})
_CALLS = st.fixed_dictionaries({}, optional={"index": _ANY, "id": _ANY, "function": _FUNCTIONS})
_DELTAS = st.fixed_dictionaries(
    {},
    optional={
        "content": _ANY,
        "reasoning": _ANY,
        "reasoning_content": _ANY,
        "refusal": _ANY,
        "tool_calls": st.lists(_CALLS, max_size=3) | _ANY,
    },
)


@settings(max_examples=60)
@given(st.lists(_DELTAS, max_size=2))
def test_no_delta_is_a_crash(deltas: list[object]) -> None:
    """An endpoint that sends anything gets pieces that can be stored, or a sentence."""
    try:
        pieces = pieces_of(*deltas)
    except AssistantError:
        return
    assert all(b"\x00" not in piece.body.encode() for piece in pieces)
