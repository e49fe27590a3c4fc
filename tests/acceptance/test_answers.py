"""docs/protocol.md §5: answers keep their text and can be stopped, with real processes."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx

from tests.acceptance.conftest import Services
from tests.support.api import Api
from tests.support.plan_mode import (
    HALF,
    TEXT,
    WHOLE,
    Assistant,
    OwnProject,
    alices_project,
    ask,
    deltas_of,
    message_of,
    watch,
)
from tests.support.processes import ServiceProcess
from tests.support.signing import token
from tests.support.sse_client import SseClient
from tests.support.waiting import wait_until


def _path(project: OwnProject, message_id: str) -> str:
    return f"/v1/projects/{project.id}/answers/{message_id}"


async def _state(api: Api, project: OwnProject, made: Any) -> Any:
    response = await api.request("GET", _path(project, made["assistantMessageId"]))
    assert response.status_code == 200, response.text
    return response.json()


async def _stop(api: Api, project: OwnProject, made: Any) -> tuple[int, Any]:
    response = await api.request("POST", f"{_path(project, made['assistantMessageId'])}/stop")
    return response.status_code, response.json()


def _text(client: SseClient) -> str:
    return "".join(delta.delta for delta in deltas_of(client.events()))


async def _half_is_stored(api: Api, project: OwnProject, made: Any) -> None:
    async def is_stored() -> bool:
        return bool((await _state(api, project, made))["text"] == HALF)

    await wait_until(is_stored, what="a checkpoint")


async def test_an_answer_of_a_killed_process_keeps_its_text(
    assistant: Assistant, services: Services, tmp_path: Path
) -> None:
    """Another process ends the answer as failed, with the text up to the last checkpoint."""
    server, service = assistant
    server.answer_with(WHOLE, pause_before=15)
    async with (
        ServiceProcess("dies", tmp_path, service.environment) as first,
        alices_project(first) as project,
        watch(project, service) as client,
        Api(services.b.url, "alice") as elsewhere,
    ):
        made = await ask(project, stream=True)
        await _half_is_stored(elsewhere, project, made)
        await first.kill()
        await client.wait_seq(2)
        state = await _state(elsewhere, project, made)
    whole = message_of(client, 2)
    assert whole["messageId"] == made["assistantMessageId"]
    assert whole["content"]["text"] == HALF
    assert whole["metadata"]["response_data"] == {
        "type": "answer_failed",
        "replyTo": made["messageId"],
        "reason": "the process that was answering has died",
    }
    assert HALF.startswith(_text(client))
    assert (state["status"], state["text"]) == ("failed", HALF)


async def test_a_service_that_is_stopped_keeps_the_text_of_its_answers(
    assistant: Assistant, tmp_path: Path
) -> None:
    """SIGTERM: an answer in progress ends as a failed message; the process exits within 10 s."""
    server, service = assistant
    server.answer_with(WHOLE, pause_before=15)
    async with ServiceProcess("ends", tmp_path, service.environment) as first:
        async with alices_project(first) as project, watch(project, service) as client:
            await ask(project, stream=True)
            await client.wait_until(lambda c: _text(c) == HALF, timeout_s=10)
            assert await first.terminate() == 0
            await client.wait_seq(2)
    whole = message_of(client, 2)
    assert whole["content"]["text"] == HALF
    assert whole["metadata"]["response_data"]["reason"] == "the service was stopped"


async def test_an_answer_is_written_again(assistant: Assistant) -> None:
    """§5 `regenerate`: 201, another answer to the same message; a repeat is 200."""
    server, service = assistant
    server.answer_with(WHOLE)
    async with alices_project(service) as project, watch(project, service) as client:
        made = await ask(project)
        path = f"{_path(project, made['assistantMessageId'])}/regenerate"
        again = [await project.api.request("POST", path, {"client_msg_id": "r"}) for _ in "12"]
        assert [each.status_code for each in again] == [201, 200]
        receipt = again[0].json()
        assert again[1].json()["messageId"] == receipt["messageId"]
        await client.wait_seq(3)
    assert (receipt["replyTo"], receipt["regenerates"]) == (
        made["messageId"],
        made["assistantMessageId"],
    )
    message = message_of(client, 3)
    assert (message["messageId"], message["content"]["text"]) == (receipt["messageId"], TEXT)
    assert message["metadata"]["regenerates"] == made["assistantMessageId"]


async def test_any_process_stops_an_answer(assistant: Assistant, services: Services) -> None:
    """§5: 202, then one message with the text so far; the endpoint sees its client leave."""
    server, service = assistant
    server.answer_with(WHOLE, pause_before=15)
    async with (
        alices_project(service) as project,
        watch(project, service) as client,
        Api(services.b.url, "bob") as bob,
    ):
        await project.api.add_member(project.id, "bob")
        made = await ask(project, stream=True)
        answer_id = made["assistantMessageId"]
        await client.wait_until(lambda c: _text(c) == HALF, timeout_s=10)
        assert await _stop(bob, project, made) == (
            202,
            {"messageId": answer_id, "status": "stopping"},
        )
        await client.wait_seq(2)
        await asyncio.wait_for(server.disconnected.wait(), 10)
        # §4: again, by anybody: 200 with the status.
        again = await _stop(project.api, project, made)
        assert again == (200, {"messageId": answer_id, "status": "stopped"})
        state = await _state(bob, project, made)
        assert len(await project.api.log(project.id)) == 2
    whole = message_of(client, 2)
    assert (whole["messageId"], whole["content"]["text"]) == (answer_id, HALF)
    assert whole["metadata"]["response_data"] == {
        "type": "answer_stopped", "replyTo": made["messageId"], "stoppedBy": "bob",
    }  # fmt: skip
    assert state == {
        "messageId": answer_id, "replyTo": made["messageId"], "status": "stopped", "text": HALF,
    }  # fmt: skip


async def test_an_answer_is_shown_while_it_is_written(assistant: Assistant) -> None:
    """§4: the stored text and the index of its last piece; the message's text after the end."""
    server, service = assistant
    server.answer_with(WHOLE, pause_before=15)
    async with alices_project(service) as project, watch(project, service) as client:
        made = await ask(project, stream=True)
        await _half_is_stored(project.api, project, made)
        await client.wait_until(lambda c: _text(c) == HALF, timeout_s=10)
        state = await _state(project.api, project, made)
        server.go_on.set()
        await client.wait_seq(2)
        ended = await _state(project.api, project, made)
    before = [delta for delta in deltas_of(client.events()) if delta.index <= state["index"]]
    assert "".join(delta.delta for delta in before) == HALF
    assert state == {
        "messageId": made["assistantMessageId"],
        "replyTo": made["messageId"],
        "status": "in_progress",
        "text": HALF,
        "index": before[-1].index,
    }
    assert (ended["status"], ended["text"], "index" in ended) == ("completed", TEXT, False)


async def test_those_who_may_not_stop_an_answer_do_not(assistant: Assistant) -> None:
    """§3, §4: strangers, tokens that only read, other projects' answers; the answer goes on."""
    server, service = assistant
    server.answer_with(WHOLE, pause_before=15)
    async with (
        alices_project(service) as project,
        alices_project(service) as other,
        Api(service.url, "eve") as eve,
        httpx.AsyncClient(base_url=service.url, trust_env=False) as http,
    ):
        made = await ask(project, stream=True)
        path = _path(project, made["assistantMessageId"])
        status, body = await _stop(eve, project, made)
        assert (status, body["code"]) == (403, "UNAUTHORIZED_PROJECT_ACCESS")
        assert (await eve.request("GET", path)).status_code == 403
        reads = {"Authorization": f"Bearer {token('alice', scope='read')}"}
        refused = await http.post(f"{path}/stop", headers=reads)
        assert (refused.status_code, refused.json()["code"]) == (403, "FORBIDDEN")
        assert (await http.get(path, headers=reads)).status_code == 200
        for message_id in (made["assistantMessageId"], made["messageId"], "x"):
            for method, end in (("GET", ""), ("POST", "/stop")):
                response = await project.api.request(method, _path(other, message_id) + end)
                assert (response.status_code, response.json()["code"]) == (404, "NOT_FOUND")
        server.go_on.set()

        async def is_completed() -> bool:
            return bool((await _state(project.api, project, made))["status"] == "completed")

        await wait_until(is_completed, what="the whole answer")


async def test_an_answer_that_breaks_off_keeps_its_text(assistant: Assistant) -> None:
    """§5: `answer_failed` with the reason and the text so far."""
    server, service = assistant
    server.answer_with(WHOLE[:15])
    async with alices_project(service) as project:
        made = await ask(project)
    assert made["assistant"]["content"]["text"] == HALF
    assert made["assistant"]["metadata"]["response_data"] == {
        "type": "answer_failed",
        "replyTo": made["messageId"],
        "reason": "the assistant's answer broke off",
    }
