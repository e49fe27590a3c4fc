"""The AI SDK's own chat over a project, with the real package and a real service.

What the transport does in each case is tested in tests/web_client/ai_sdk.test.mjs. Here is what its
user sees: an answer in pieces, a stop, a reload in the middle.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import AsyncIterator

import pytest

from tests.support.ai_chat import AiChat, ShownCall, ShownChat
from tests.support.completions_server import DONE, call_chunk, chunk, delta_chunk
from tests.support.node_modules import node_modules
from tests.support.plan_mode import HALF, TEXT, WHOLE, Assistant, OwnProject, alices_project
from tests.support.signing import token

_THOUGHT = [
    delta_chunk(reasoning_content="Let me "),
    delta_chunk(reasoning_content="see."),
    call_chunk(0, "call_1", "search", '{"query": '),
    call_chunk(0, None, None, '"plans"}'),
]

pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="needs node")


@pytest.fixture(autouse=True)
def packages() -> None:
    """The AI SDK, installed."""
    node_modules()


@contextlib.asynccontextmanager
async def _chat(assistant: Assistant, project: OwnProject) -> AsyncIterator[AiChat]:
    credentials = token("alice", scope="read write")
    async with AiChat(assistant.service.url, project.id, credentials) as chat:
        yield chat


def _is_half(shown: ShownChat) -> bool:
    return shown.texts[-1:] == [HALF]


def _is_over(shown: ShownChat) -> bool:
    last = shown.messages[-1] if shown.messages else None
    return shown.status == "ready" and last is not None and last.ending is not None


async def test_a_reload_in_the_middle_of_an_answer_goes_on_where_it_was(
    assistant: Assistant,
) -> None:
    """Both chats end with the text of the message, the late one with its beginning too."""
    assistant.endpoint.answer_with([*_THOUGHT, *WHOLE], pause_before=len(_THOUGHT) + 15)
    async with (
        alices_project(assistant.service) as project,
        _chat(assistant, project) as first,
    ):
        first.do(send="plan it")
        await first.shows(_is_half, what="half of the answer")
        assert first.shown.status == "streaming"
        async with _chat(assistant, project) as reloaded:
            reloaded.do(resume=True)
            await reloaded.shows(
                lambda shown: _is_half(shown) and shown.status == "streaming",
                what="the answer so far",
            )
            assistant.endpoint.go_on.set()
            shown = await reloaded.shows(_is_over, what="the end of the answer")
        await first.shows(_is_over, what="the end of the answer")
        log = await project.api.log(project.id)
    assert shown.messages[1] == first.shown.messages[1]
    assert shown.texts == first.shown.texts == [row.text for row in log] == ["plan it", TEXT]
    question, answer = shown.messages
    assert (question.role, answer.role, answer.id) == ("user", "assistant", log[1].message_id)
    assert answer.reasoning == "Let me see."
    assert answer.calls == [ShownCall("search", {"query": "plans"})]


async def test_an_answer_is_written_again(assistant: Assistant) -> None:
    """§5: the chat and one that is opened afterwards show the new answer alone."""
    assistant.endpoint.answer_with([chunk("one"), DONE])
    async with (
        alices_project(assistant.service) as project,
        _chat(assistant, project) as chat,
    ):
        chat.do(send="plan it")
        await chat.shows(_is_over, what="the answer")
        assistant.endpoint.answer_with([chunk("two"), DONE])
        chat.do(regenerate=True)
        shown = await chat.shows(
            lambda shown: _is_over(shown) and shown.texts[-1] == "two", what="the other answer"
        )
        async with _chat(assistant, project) as reloaded:
            await reloaded.shows(lambda now: now.texts == shown.texts, what="the same texts")
        log = await project.api.log(project.id)
    assert shown.texts == ["plan it", "two"]
    assert [row.text for row in log] == ["plan it", "one", "two"]


async def test_stop_ends_the_answer_for_everyone(assistant: Assistant) -> None:
    """§5: the chat's stop is the answer's: its message has what was written so far."""
    assistant.endpoint.answer_with(WHOLE, pause_before=15)
    async with (
        alices_project(assistant.service) as project,
        _chat(assistant, project) as chat,
    ):
        chat.do(send="plan it")
        await chat.shows(_is_half, what="half of the answer")
        chat.do(stop=True)
        shown = await chat.shows(_is_over, what="the end of the answer")
        log = await project.api.log(project.id)
    assert shown.error is None
    assert shown.messages[1].ending == "stopped"
    assert shown.texts == [row.text for row in log] == ["plan it", HALF]
