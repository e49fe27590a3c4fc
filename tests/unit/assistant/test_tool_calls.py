"""Which fragments are of one tool call, with endpoints that differ in what they send.

The streams are as users reported them of these endpoints; `service/assistant/tool_calls.py` cites.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.assistant.assistants import AssistantError
from service.assistant.tool_calls import (
    MAX_CALLS,
    MAX_NAME_CHARACTERS,
    CallText,
    Fragment,
    ToolCalls,
)


def calls_of(*fragments: tuple[int | None, str, str, str]) -> list[tuple[str, str, str]]:
    """Return each call's id, name and input, in the order in which the calls are shown."""
    texts: dict[tuple[str, str], str] = {}
    calls = ToolCalls()
    for fragment in fragments:
        added = calls.add(Fragment(*fragment))
        if added is not None:
            key = (added.id, added.name)
            texts[key] = texts.get(key, "") + added.text
    return [(call_id, name, text) for (call_id, name), text in texts.items()]


@pytest.mark.parametrize(
    ("fragments", "calls"),
    [
        pytest.param(
            [(0, "a", "f", ""), (0, "", "", "{"), (1, "b", "g", ""), (0, "", "", "}"),
             (1, "", "", "[]")],
            [("a", "f", "{}"), ("b", "g", "[]")],
            id="OpenAI: id and name come first, then the index tells",
        ),
        pytest.param(
            [(None, "a", "f", "{}"), (None, "b", "f", "["), (None, "", "", "]")],
            [("a", "f", "{}"), ("b", "f", "[]")],
            id="Gemini: no index",
        ),
        pytest.param(
            [(0, "a", "f", "{}"), (0, "b", "f", "[]")],
            [("a", "f", "{}"), ("b", "f", "[]")],
            id="Ollama: whole calls, each with index 0",
        ),
        pytest.param(
            [(0, "", "f", "{"), (0, "", "", "}"), (1, "", "f", "[]")],
            [("call_0", "f", "{}"), ("call_1", "f", "[]")],
            id="Ollama: no id",
        ),
        pytest.param(
            [(None, "", "f", "{}"), (None, "", "f", "[]")],
            [("call_0", "f", "{}"), ("call_1", "f", "[]")],
            id="neither index nor id: a name begins a call",
        ),
        pytest.param(
            [(0, "", "f", "{}"), (0, "", "g", "[]")],
            [("call_0", "f", "{}"), ("call_1", "g", "[]")],
            id="one index and no id: another name begins a call",
        ),
        pytest.param(
            [(0, "a1", "f", ""), (0, "a2", "", "{"), (0, "a3", "", "}"), (1, "b1", "g", "[]")],
            [("a1", "f", "{}"), ("b1", "g", "[]")],
            id="Kimi: another id with every fragment",
        ),
        pytest.param(
            [(0, "a", "f", "{"), (0, "a", "f", "}"), (0, "", "f", " ")],
            [("a", "f", "{} ")],
            id="MiniMax: the name with every fragment",
        ),
        pytest.param(
            [(None, "a", "f", "{"), (None, "b", "g", "["), (None, "a", "f", "}"),
             (None, "b", "", "]")],
            [("a", "f", "{}"), ("b", "g", "[]")],
            id="no index: the id tells",
        ),
        pytest.param(
            [(0, "a", "f", "{}"), (0, "b", "g", "["), (1, "", "", "]")],
            [("a", "f", "{}"), ("b", "g", "[]")],
            id="DeepSeek: the index of another call, then one of no call",
        ),
        pytest.param(
            [(0, "a", "f", "{}"), (1, "b", "", ""), (1, "", "g", "[]")],
            [("a", "f", "{}"), ("b", "g", "[]")],
            id="the id with a new index, before the name",
        ),
        pytest.param(
            [(1, "a", "f", "{}")],
            [("a", "f", "{}")],
            id="LiteLLM: the first index is not 0",
        ),
        pytest.param(
            [(0, "f", "f", "{"), (1, "f", "f", "["), (0, "", "", "}"), (1, "f", "", "]")],
            [("f", "f", "{}"), ("call_1", "f", "[]")],
            id="the function's name as the id of two calls",
        ),
        pytest.param(
            [(0, "call_1", "f", "{}"), (1, "", "g", "[]"), (2, "call_2", "h", "()")],
            [("call_1", "f", "{}"), ("call_2", "g", "[]"), ("call_3", "h", "()")],
            id="an id that is missing is not one that was or will be sent",
        ),
    ],
)  # fmt: skip
def test_fragments_of_a_call_have_its_id_and_name(
    fragments: list[tuple[int | None, str, str, str]], calls: list[tuple[str, str, str]]
) -> None:
    """However little an endpoint says of it: each call has one id, one name and its whole input."""
    assert calls_of(*fragments) == calls


def test_a_call_without_input_is_shown() -> None:
    """Some tools take none."""
    assert ToolCalls().add(Fragment(0, "a", "now", "")) == CallText("a", "now", "")


def test_a_call_is_shown_when_its_name_is_known() -> None:
    """An id alone is nothing to show; the name that follows is the call's from the start."""
    calls = ToolCalls()
    assert calls.add(Fragment(0, "a", "", "")) is None
    assert calls.add(Fragment(0, "", "f", "")) == CallText("a", "f", "")
    assert calls.add(Fragment(0, "", "", "")) is None


def test_input_that_comes_before_its_name_is_not_kept_back() -> None:
    """Nothing is held here without a bound: the call stays without a name then."""
    assert calls_of((0, "a", "", "{"), (0, "", "f", "}")) == [("a", "", "{}")]


def test_calls_are_bounded() -> None:
    """A hostile endpoint may not fill the memory with calls."""
    calls = ToolCalls()
    for number in range(MAX_CALLS):
        calls.add(Fragment(number, "", "f", "{}"))
    calls.add(Fragment(0, "", "", " "))
    with pytest.raises(AssistantError, match="too many tools"):
        calls.add(Fragment(MAX_CALLS, "", "f", "{}"))


def test_ids_and_names_are_cut() -> None:
    """Of a long id the same is cut off each time, so its fragments stay together."""
    long_id, long_name = "i" * 1000, "n" * 1000
    shown = ("i" * MAX_NAME_CHARACTERS, "n" * MAX_NAME_CHARACTERS)
    fragments = [(None, long_id, long_name, "{"), (None, long_id, "", "}")]
    assert calls_of(*fragments) == [(*shown, "{}")]


@given(
    st.lists(st.integers(0, 3), max_size=20),
    st.booleans(),
    st.sampled_from(["absent", "first", "always"]),
)
def test_calls_that_are_written_at_once_stay_apart(
    turns: list[int], resends_name: bool, ids: str
) -> None:
    """With an index, whatever else is sent again or not at all."""
    expected: dict[int, str] = {}
    fragments = []
    for number, index in enumerate(turns):
        is_first = index not in expected
        call_id = f"id{index}" if ids == "always" or (ids == "first" and is_first) else ""
        name = f"f{index}" if is_first or resends_name else ""
        expected[index] = expected.get(index, "") + f"{number},"
        fragments.append((index, call_id, name, f"{number},"))
    assert [(name, text) for _, name, text in calls_of(*fragments)] == [
        (f"f{index}", text) for index, text in expected.items()
    ]
