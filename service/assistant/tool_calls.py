"""The tool calls of one answer: which call a fragment belongs to, and what it is named.

Pure. OpenAI sends a call's `id` and `name` with its first fragment, and says with `index` which
call a fragment continues. Other endpoints differ, each in its way, so a call is found by whatever
identifies it. How fragments are read is in `completion_chunks.py`.
"""

from __future__ import annotations

import msgspec

from service.assistant.assistants import AssistantError

MAX_CALLS = 64
# OpenAI allows 64 characters. LiteLLM appends signatures of about a thousand to ids
# (https://github.com/BerriAI/litellm/issues/41534). Nobody needs them here, so they are cut.
MAX_NAME_CHARACTERS = 128


class Fragment(msgspec.Struct, frozen=True):
    """A piece of a call as it was sent; an empty string where the endpoint sent nothing."""

    index: int | None
    id: str
    name: str
    text: str


class CallText(msgspec.Struct, frozen=True):
    """More of a call's input. All of one call have the same `id` and `name`."""

    id: str
    name: str
    text: str


class _Call:
    __slots__ = ("id", "is_shown", "name")

    def __init__(self, call_id: str) -> None:
        self.id = call_id
        self.name = ""
        self.is_shown = False


class ToolCalls:
    """The calls of one answer. Keeps no more than `MAX_CALLS` ids and names."""

    def __init__(self) -> None:
        self._ids: set[str] = set()
        self._by_id: dict[str, _Call] = {}
        self._by_index: dict[int, _Call] = {}
        self._last: _Call | None = None

    def add(self, fragment: Fragment) -> CallText | None:
        """Return what a fragment adds to its call; None when that is nothing.

        A call is shown when its name is known, even without input: some tools take none. Its name
        is fixed then, so that its texts join.

        Raises:
            AssistantError: it begins a call too many.
        """
        call_id = fragment.id[:MAX_NAME_CHARACTERS]
        name = fragment.name[:MAX_NAME_CHARACTERS]
        call = self._find(fragment.index, call_id, name) or self._begin(fragment.index, call_id)
        self._last = call
        if not call.is_shown:
            call.name = name or call.name
        if not fragment.text and (call.is_shown or not call.name):
            return None
        call.is_shown = True
        return CallText(call.id, call.name, fragment.text)

    def _find(self, index: int | None, call_id: str, name: str) -> _Call | None:
        """Return the call that a fragment continues; None when it begins one."""
        by_id = self._by_id.get(call_id)
        by_index = None if index is None else self._by_index.get(index)
        if not name:
            known = by_id or by_index
            is_first = bool(call_id) and index is not None
            # Poolside, Kimi and LM Studio change the id within a call: where the index is known,
            # an id without a name begins nothing (https://github.com/poolsideai/pool/issues/9).
            # Gemini sends no index (https://github.com/openai/openai-python/issues/2806), DeepSeek
            # was seen with a wrong one (https://github.com/agno-agi/agno/pull/8880): a fragment
            # that identifies no call continues the last.
            return known or (None if is_first else self._last)
        if index is not None and by_index is None:
            return None
        if call_id:
            # Ollama sends index 0 for every call (https://github.com/vercel/ai/pull/14277): a new
            # id with a name begins one.
            return by_id
        # MiniMax behind NVIDIA NIM sends the name with every fragment.
        return by_index if by_index is not None and by_index.name in ("", name) else None

    def _begin(self, index: int | None, call_id: str) -> _Call:
        if len(self._ids) == MAX_CALLS:
            raise AssistantError("the assistant called too many tools")
        if not call_id or call_id in self._ids:
            # Two calls with one id: the id tells them apart no longer.
            self._by_id.pop(call_id, None)
            call = _Call(self._unused_id())
        else:
            call = self._by_id[call_id] = _Call(call_id)
        self._ids.add(call.id)
        if index is not None:
            self._by_index[index] = call
        return call

    def _unused_id(self) -> str:
        number = len(self._ids)
        while f"call_{number}" in self._ids:
            number += 1
        return f"call_{number}"
