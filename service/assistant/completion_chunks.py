"""What the chunks of a streamed chat completion say, as the pieces of an answer.

Pure. Of a delta only what an answer shows is read; which form is accepted in which field, and why,
is said at the field. The connection is in `chat_completions.py`, what belongs to which tool call in
`tool_calls.py`.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from service.assistant.assistants import AssistantError
from service.assistant.tool_calls import Fragment, ToolCalls
from streams.answers.pieces import Piece, PieceKind, part_piece, text_piece

# An endpoint may send a whole call at once. JSON escapes make a text at most six times as long:
# with an id and a name still within the bound on a piece (`MAX_PIECE_BYTES`).
_PART_CHARACTERS = 4000


class _ContentPart(msgspec.Struct):
    """Mistral's models that reason send `content` as a list of parts.

    https://github.com/BerriAI/litellm/issues/16272. Parts of other types show nothing.
    """

    type: str = ""
    text: str = ""
    thinking: list[_ContentPart] | None = None


class _Function(msgspec.Struct):
    name: str | None = None
    # llama.cpp sent an object instead of JSON text for a while:
    # https://github.com/ggml-org/llama.cpp/issues/20198
    arguments: str | dict[str, msgspec.Raw] | None = None


class _ToolCall(msgspec.Struct):
    index: int | None = None
    # Poolside sends a number.
    id: str | int | None = None
    function: _Function | None = None


class _Delta(msgspec.Struct):
    """What the answer consists of has a type; another one ends it, or it would have holes.

    The other fields are no part of OpenAI's protocol, or (`refusal`) seldom sent: an endpoint that
    means something else by the name must not lose its answer, so only strings are read.
    """

    content: str | list[_ContentPart] | None = None
    tool_calls: list[_ToolCall] | None = None
    refusal: object = None
    # One text under two names: DeepSeek's, and the one of OpenRouter, Ollama and newer vLLM
    # (https://github.com/vllm-project/vllm/issues/27755). Some endpoints send both.
    reasoning_content: object = None
    reasoning: object = None


class _Choice(msgspec.Struct):
    # Azure sends chunks about its content filter without a delta:
    # https://github.com/openai/openai-python/issues/1677
    delta: _Delta | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None
    error: object = None


_decode = msgspec.json.Decoder(_Chunk).decode


class ChunkReader:
    """Reads the chunks of one answer, in the order in which they came."""

    def __init__(self) -> None:
        self._calls = ToolCalls()

    def pieces(self, data: bytes) -> list[Piece]:
        """Return the pieces in a chunk, reasoning first: it leads to what comes with it.

        Raises:
            AssistantError: the chunk reports an error, or is none.
        """
        try:
            chunk = _decode(data)
            if chunk.error is not None:
                raise AssistantError("the assistant's endpoint reported an error")
            delta = chunk.choices[0].delta if chunk.choices else None
            return [] if delta is None else list(self._of_delta(delta))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise AssistantError("the assistant's endpoint answered in another form") from None

    def _of_delta(self, delta: _Delta) -> Iterator[Piece]:
        yield from _reasoning(_string(delta.reasoning_content) or _string(delta.reasoning))
        if isinstance(delta.content, list):
            for part in delta.content:
                yield from _of_content(part)
        elif delta.content:
            yield text_piece(delta.content)
        # Why the model does not answer: for who reads it, the answer.
        refusal = _string(delta.refusal)
        if refusal:
            yield text_piece(refusal)
        for call in delta.tool_calls or ():
            yield from self._of_call(call)

    def _of_call(self, call: _ToolCall) -> Iterator[Piece]:
        function = call.function or _Function()
        arguments = function.arguments or ""
        if isinstance(arguments, dict):
            arguments = msgspec.json.encode(arguments).decode()
        call_id = "" if call.id is None else str(call.id)
        added = self._calls.add(Fragment(call.index, call_id, function.name or "", arguments))
        if added is not None:
            yield from _parts("tool", added.text, id=added.id, name=added.name)


def _of_content(part: _ContentPart) -> Iterator[Piece]:
    if part.type == "thinking":
        yield from _reasoning("".join(each.text for each in part.thinking or ()))
    elif part.type == "text" and part.text:
        yield text_piece(part.text)


def _reasoning(text: str) -> Iterator[Piece]:
    if text:
        yield from _parts("reasoning", text)


def _parts(kind: PieceKind, text: str, **data: str) -> Iterator[Piece]:
    """Return a text as pieces that join: at least one, also when it is empty."""
    for start in range(0, max(1, len(text)), _PART_CHARACTERS):
        yield part_piece(kind, {**data, "text": text[start : start + _PART_CHARACTERS]})


def _string(value: object) -> str:
    return value if isinstance(value, str) else ""
