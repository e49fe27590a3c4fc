"""docs/protocol.md §4 and §5: assistants outside, with a worker's requests to two processes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from service.operate.embedded import RedisServer
from tests.acceptance.conftest import NewProject, Project, Services
from tests.support.api import Api
from tests.support.plan_mode import message_of
from tests.support.processes import ServiceProcess, service_environment
from tests.support.signing import token
from tests.support.sse_client import SseClient
from tests.support.waiting import wait_until

UNKNOWN = "00000000-0000-4000-8000-000000000000"


class Worker:
    """The assistant `bot`: signed requests with the scope `worker`, to the processes in turn."""

    def __init__(self, project_id: str, apis: list[Api]) -> None:
        self._path = f"/v1/projects/{project_id}/answers"
        self._apis = apis
        self._number = 0

    async def post(self, path: str, body: object) -> httpx.Response:
        """Send one request to the next process."""
        self._number += 1
        api = self._apis[self._number % len(self._apis)]
        return await api.request("POST", f"{self._path}{path}", body, scope="worker")

    async def begin(self, reply_to: str, **body: object) -> Any:
        """Begin an answer and return it."""
        response = await self.post("", {"replyTo": reply_to, **body})
        assert response.status_code == 201, response.text
        return response.json()

    async def write(self, answer_id: str, index: int, *parts: object) -> httpx.Response:
        """Send pieces; text may be given as a string."""
        sent = [{"delta": part} if isinstance(part, str) else part for part in parts]
        return await self.post(f"/{answer_id}/deltas", {"index": index, "parts": sent})

    async def end(self, answer_id: str, status: str, **body: object) -> httpx.Response:
        """End an answer."""
        return await self.post(f"/{answer_id}/end", {"status": status, **body})


@contextlib.asynccontextmanager
async def _worker(project: Project, *processes: ServiceProcess) -> AsyncIterator[Worker]:
    await project.api.add_member(project.id, "bot")
    async with contextlib.AsyncExitStack() as stack:
        apis = [await stack.enter_async_context(Api(each.url, "bot")) for each in processes]
        yield Worker(project.id, apis)


@pytest.fixture
async def worker(services: Services, project: Project) -> AsyncIterator[Worker]:
    """A worker in the test's project, whose requests alternate between the processes."""
    async with _worker(project, services.a, services.b) as made:
        yield made


async def _question(project: Project) -> str:
    return (await project.api.post(project.id, "why?")).message_id


async def _member(project: Project, method: str, path: str, body: object = None) -> httpx.Response:
    return await project.api.request(method, f"/v1/projects/{project.id}/answers/{path}", body)


def _watch(project: Project, *processes: ServiceProcess) -> SseClient:
    return SseClient("member", [each.url for each in processes], project.id, token("owner"))


def _code(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["code"]


async def test_a_worker_writes_an_answer_over_http(
    services: Services, project: Project, worker: Worker
) -> None:
    """§5: begun, shown piece by piece, ended as one message; each request to another process."""
    question = await _question(project)
    async with _watch(project, services.b) as client:
        begun = await worker.begin(question, client_msg_id="one")
        answer_id = begun["messageId"]
        assert begun == {
            "messageId": answer_id,
            "projectId": project.id,
            "replyTo": question,
            "status": "in_progress",
            "nextIndex": 0,
        }
        tool = {"kind": "tool", "data": {"id": "call_1", "name": "search", "text": "{}"}}
        sent: list[object] = ["Hello ", "world", tool, *(f" {number}" for number in range(6))]
        for index, part in enumerate(sent):
            response = await worker.write(answer_id, index, part)
            assert response.status_code == 200, response.text
            assert response.json() == {"stopRequested": False, "nextIndex": index + 1}
        shown = (await _member(project, "GET", answer_id)).json()
        text = "Hello world 0 1 2 3 4 5"
        parts = [{"kind": "tool", "offset": 11, "data": tool["data"]}]
        assert shown == {
            "messageId": answer_id,
            "replyTo": question,
            "status": "in_progress",
            "text": text,
            "parts": parts,
            "index": 8,
        }
        repeat = await worker.post("", {"replyTo": question, "client_msg_id": "one"})
        assert repeat.status_code == 200
        assert repeat.json() == {**begun, "nextIndex": 9}
        ended = [await worker.end(answer_id, "completed", metadata={"model": "m"}) for _ in "12"]
        await client.wait_seq(2)
    assert [each.json() for each in ended] == [
        {"messageId": answer_id, "status": "completed", "seq": 2}
    ] * 2
    deltas = [
        msgspec.json.decode(event.data)["content"] for event in client.events("message.delta")
    ]
    assert [each["index"] for each in deltas] == list(range(9))
    assert "".join(each.get("delta", "") for each in deltas) == text
    message = message_of(client, 2)
    assert (message["messageId"], message["userId"]) == (answer_id, "bot")
    assert message["content"]["text"] == text
    assert message["metadata"] == {
        "build_id": None,
        "model": "m",
        "response_data": {
            "type": "answer",
            "replyTo": question,
            "truncated": False,
            "parts": parts,
        },
    }


async def test_a_hole_names_the_index_that_is_expected(project: Project, worker: Worker) -> None:
    """§4: 409 INDEX_GAP, with which a worker that lost count goes on."""
    answer_id = (await worker.begin(await _question(project)))["messageId"]
    assert (await worker.write(answer_id, 0, "a", "b")).status_code == 200
    refused = await worker.write(answer_id, 3, "d")
    assert _code(refused) == (409, "INDEX_GAP")
    assert refused.json()["details"] == {"expected": 2}


async def test_a_member_stops_a_worker(project: Project, worker: Worker) -> None:
    """§5: the answer ends at once with its text; the worker hears of it in its next request."""
    answer_id = (await worker.begin(await _question(project)))["messageId"]
    await worker.write(answer_id, 0, "half")
    stopped = [await _member(project, "POST", f"{answer_id}/stop") for _ in "12"]
    assert [(each.status_code, each.json()) for each in stopped] == [
        (200, {"messageId": answer_id, "status": "stopped"})
    ] * 2
    told = await worker.write(answer_id, 1, "more")
    assert (told.status_code, told.json()) == (200, {"stopRequested": True, "nextIndex": 1})
    ended = await worker.end(answer_id, "completed", text="whole")
    assert (ended.status_code, ended.json()["status"]) == (200, "stopped")
    shown = (await _member(project, "GET", answer_id)).json()
    assert (shown["status"], shown["text"], "index" in shown) == ("stopped", "half", False)


async def test_an_answer_that_has_ended_takes_no_pieces(project: Project, worker: Worker) -> None:
    """§4: 409 ANSWER_ENDED."""
    answer_id = (await worker.begin(await _question(project)))["messageId"]
    ended = await worker.end(answer_id, "failed", text="so far", reason="no model")
    assert ended.json()["status"] == "failed"
    assert _code(await worker.write(answer_id, 0, "late")) == (409, "ANSWER_ENDED")


def _states(client: SseClient, answer_id: str) -> list[Any]:
    """The data of `answer.state` that a client received of an answer."""
    data = [msgspec.json.decode(event.data) for event in client.events("answer.state")]
    return [each for each in data if each["content"]["messageId"] == answer_id]


async def test_members_ask_a_worker_again(
    services: Services, project: Project, worker: Worker
) -> None:
    """§5: not while it writes; then another answer, of which the worker's stream tells."""
    question = await _question(project)
    answer_id = (await worker.begin(question))["messageId"]
    again = f"{answer_id}/regenerate"
    assert _code(await _member(project, "POST", again)) == (409, "ANSWER_IN_PROGRESS")
    await worker.end(answer_id, "completed", text="first")
    async with _watch(project, services.b) as client:
        await client.wait_seq(2)
        made = [await _member(project, "POST", again, {"client_msg_id": "r"}) for _ in "12"]
        assert [each.status_code for each in made] == [201, 200]
        second = made[0].json()
        assert made[1].json() == second
        await client.wait_until(lambda c: bool(_states(c, second["messageId"])), timeout_s=10)
    state = _states(client, second["messageId"])[0]
    assert (state["userId"], state["content"]["replyTo"]) == ("bot", question)
    assert (state["content"]["index"], state["content"]["status"]) == (-1, "in_progress")
    assert second == {
        "messageId": second["messageId"],
        "replyTo": question,
        "regenerates": answer_id,
        "status": "in_progress",
    }
    await worker.write(second["messageId"], 0, "second")
    ended = await worker.end(second["messageId"], "completed")
    assert ended.json() == {"messageId": second["messageId"], "status": "completed", "seq": 3}
    page = await project.api.history_page(project.id, after_seq=2)
    message = msgspec.json.decode(page.messages[0])
    assert message["content"]["text"] == "second"
    assert message["metadata"]["regenerates"] == answer_id


DEEP = msgspec.json.decode(b"[" * 65 + b"]" * 65)
BAD_BODIES = [
    ("", {}, "replyTo"),
    ("", {"replyTo": ""}, "replyTo"),
    ("", {"replyTo": UNKNOWN, "client_msg_id": "a\nb"}, "client_msg_id"),
    ("", {"replyTo": UNKNOWN, "client_msg_id": "x" * 129}, "client_msg_id"),
    ("/ID/deltas", {"parts": []}, "index"),
    ("/ID/deltas", {"index": -1, "parts": []}, "index"),
    ("/ID/deltas", {"index": 0}, "parts"),
    ("/ID/deltas", {"index": 0, "parts": [{"delta": ""}] * 201}, "parts"),
    ("/ID/deltas", {"index": 0, "parts": [{"delta": "a"}, {"delta": 1}]}, "parts[1].delta"),
    ("/ID/deltas", {"index": 0, "parts": [{}]}, "parts[0].delta"),
    ("/ID/deltas", {"index": 0, "parts": [{"delta": "a", "data": None}]}, "parts[0].data"),
    ("/ID/deltas", {"index": 0, "parts": [{"kind": "x", "data": 1}]}, "parts[0].kind"),
    ("/ID/deltas", {"index": 0, "parts": [{"kind": "tool"}]}, "parts[0].data"),
    ("/ID/deltas", {"index": 0, "parts": [{"kind": "data", "delta": "a"}]}, "parts[0].delta"),
    ("/ID/deltas", {"index": 0, "parts": [{"kind": "data", "data": DEEP}]}, "parts[0].data"),
    ("/ID/end", {}, "status"),
    ("/ID/end", {"status": "completed", "metadata": {"a": DEEP}}, "metadata"),
    ("/ID/end", {"status": "in_progress"}, "status"),
    ("/ID/end", {"status": "completed", "text": "a\x00"}, "text"),
    ("/ID/end", {"status": "failed", "reason": "x" * 501}, "reason"),
    ("/ID/end", {"status": "completed", "metadata": []}, "metadata"),
    ("/ID/end", {"status": "completed", "metadata": {"build_id": "x"}}, "metadata.build_id"),
    ("/ID/end", {"status": "completed", "metadata": {"regenerates": 1}}, "metadata.regenerates"),
    (
        "/ID/end",
        {"status": "completed", "metadata": {"response_data": {}}},
        "metadata.response_data",
    ),
]  # fmt: skip


async def test_a_bad_field_is_named(project: Project, worker: Worker) -> None:
    """§4: 400 with the field's path; the answer goes on."""
    answer_id = (await worker.begin(await _question(project)))["messageId"]
    for path, body, field in BAD_BODIES:
        refused = await worker.post(path.replace("ID", answer_id), body)
        assert refused.status_code == 400, (body, refused.text)
        assert [each["field"] for each in refused.json()["details"]] == [field], refused.text
    assert (await worker.write(answer_id, 0, "a")).json()["nextIndex"] == 1


async def test_what_is_too_large_is_named(project: Project, worker: Worker) -> None:
    """§4: 413; nothing of the request is kept, and the worker can still end the answer."""
    answer_id = (await worker.begin(await _question(project)))["messageId"]
    await worker.write(answer_id, 0, "x" * 60_000)
    data = {"kind": "data", "data": "x" * 32_000}
    for field, parts in (
        ("parts[1].delta", ["x" * 5000, "x" * 1000]),
        ("parts[0].data", [{"kind": "tool", "data": "x" * 33_000}]),
        ("parts", [data, data, data]),
    ):
        refused = await worker.write(answer_id, 1, *parts)
        assert _code(refused) == (413, "PAYLOAD_TOO_LARGE")
        assert refused.json()["details"][0]["field"] == field
    refused = await worker.end(answer_id, "completed", text="x" * 65_537)
    assert refused.json()["details"][0]["field"] == "text"
    assert (await worker.end(answer_id, "completed")).json()["status"] == "completed"


def _written(answer_id: str, count: int) -> list[str]:
    """The same id in `count` ways."""
    letters = [place for place, character in enumerate(answer_id) if character.isalpha()]
    ways = []
    for number in range(count):
        way = list(answer_id)
        for bit, place in enumerate(letters):
            if number >> bit & 1:
                way[place] = way[place].upper()
        ways.append("".join(way))
    return ways


async def test_a_worker_that_sends_too_fast_is_held_back(
    services: Services, project: Project
) -> None:
    """§4: renewals count too, however the id is written; beyond few that wait, 429."""
    async with _worker(project, services.a) as worker:
        answer_id = (await worker.begin(await _question(project)))["messageId"]
        responses = await asyncio.gather(
            *(worker.write(written, 0) for written in _written(answer_id, 60))
        )
        refused = [each for each in responses if each.status_code == 429]
        assert {_code(each) for each in refused} == {(429, "RATE_LIMITED")}
        assert all(int(each.headers["Retry-After"]) >= 1 for each in refused)
        assert {each.status_code for each in responses} == {200, 429}


OUTSIDE = ["POST ", "POST /ID/deltas", "POST /ID/end"]
MEMBERS = ["POST /ID/stop", "POST /ID/regenerate"]
READ = ["GET /ID"]
BODIES: dict[str, object] = {
    "POST ": {"replyTo": UNKNOWN},
    "POST /ID/deltas": {"index": 0, "parts": [{"delta": "not mine"}]},
    "POST /ID/end": {"status": "completed"},
    "POST /ID/regenerate": {},
}
DENIED = (403, "UNAUTHORIZED_PROJECT_ACCESS")
LACKS_SCOPE = (403, "FORBIDDEN")


@pytest.mark.parametrize(
    "user_id, scope, elsewhere, routes, expected",
    [
        (None, "", False, OUTSIDE + MEMBERS + READ, (401, "UNAUTHENTICATED")),
        ("stranger", "read write worker", False, OUTSIDE + MEMBERS + READ, DENIED),
        ("operator", "read write worker admin", False, OUTSIDE + MEMBERS, DENIED),
        ("bot", "read write worker", True, OUTSIDE + MEMBERS + READ, DENIED),
        ("bot", "worker", False, MEMBERS + READ, LACKS_SCOPE),
        ("bot", "read", False, OUTSIDE + MEMBERS, LACKS_SCOPE),
        ("bot", "read write", False, OUTSIDE, LACKS_SCOPE),
        ("bot", "write", False, READ, LACKS_SCOPE),
        # A worker, but not this answer's.
        ("owner", "read write worker", False, OUTSIDE[1:], LACKS_SCOPE),
        ("bot", "worker", False, OUTSIDE[:1], (404, "NOT_FOUND")),
    ],
)
async def test_who_may(
    services: Services,
    project: Project,
    worker: Worker,
    user_id: str | None,
    scope: str,
    elsewhere: bool,
    routes: list[str],
    expected: tuple[int, str],
) -> None:
    """§3 and §4: workers write with `worker` alone, and only their own; members stop and ask."""
    answer_id = (await worker.begin(await _question(project)))["messageId"]
    headers = {}
    if user_id is not None:
        projects = ["acc-other"] if elsewhere else None
        headers["Authorization"] = f"Bearer {token(user_id, scope=scope, projects=projects)}"
    async with httpx.AsyncClient(base_url=services.b.url, trust_env=False) as http:
        for route in routes:
            method, _, path = route.partition(" ")
            response = await http.request(
                method,
                f"/v1/projects/{project.id}/answers{path.replace('ID', answer_id)}",
                json=BODIES.get(route),
                headers=headers,
            )
            assert _code(response) == expected, route
    shown = (await _member(project, "GET", answer_id)).json()
    assert (shown["status"], shown["text"]) == ("in_progress", "")


async def test_a_worker_that_was_removed_writes_no_more(
    services: Services, project: Project, worker: Worker
) -> None:
    """§3: in either process, at once where its removal was requested."""
    answer_id = (await worker.begin(await _question(project)))["messageId"]
    await project.api.request("DELETE", f"/v1/projects/{project.id}/members/bot")
    async with Api(services.a.url, "bot") as bot:
        path = f"/v1/projects/{project.id}/answers/{answer_id}/deltas"
        refused = await bot.request(
            "POST", path, {"index": 0, "parts": [{"delta": "a"}]}, scope="worker"
        )
    assert _code(refused) == DENIED


async def test_unknown_answers_are_not_found(project: Project, worker: Worker) -> None:
    """§4: 404, for workers and for members."""
    for answer_id in (UNKNOWN, "no-uuid", "%7Bx%7D"):
        assert _code(await worker.write(answer_id, 0, "a")) == (404, "NOT_FOUND")
        assert _code(await worker.end(answer_id, "completed")) == (404, "NOT_FOUND")
        for method, path in (("GET", ""), ("POST", "/stop"), ("POST", "/regenerate")):
            response = await _member(project, method, f"{answer_id}{path}")
            assert _code(response) == (404, "NOT_FOUND")


@pytest.fixture
async def short(
    shared_url: str, own_redis: RedisServer, tmp_path: Path
) -> AsyncIterator[ServiceProcess]:
    """A process with a Redis of its own, few answers and leases of a second."""
    settings = {
        "SEQSTREAM_OUTSIDE_ANSWER_LEASE_SECONDS": "1",
        "SEQSTREAM_ANSWER_LEASE_SECONDS": "1",
        "SEQSTREAM_MAX_ANSWERS_PER_PROJECT": "2",
    }
    environment = service_environment(shared_url, own_redis.url, settings)
    async with ServiceProcess("short", tmp_path, environment) as process:
        yield process


async def test_silence_limits_and_doing_without_redis(
    short: ServiceProcess, new_project: NewProject, own_redis: RedisServer
) -> None:
    """§5: a silent worker has failed; too many answers are 429; without Redis all goes on."""
    project = await new_project(short)
    question = await _question(project)
    async with _worker(project, short) as worker:
        answer_id = (await worker.begin(question))["messageId"]
        await worker.write(answer_id, 0, "half")
        await worker.begin(question)
        refused = await worker.post("", {"replyTo": question})
        assert _code(refused) == (429, "RATE_LIMITED")
        assert int(refused.headers["Retry-After"]) >= 1
        counted = await project.api.request("GET", "/metrics")
        assert "\nrate_limited_total 1.0\n" in counted.text

        async def has_failed() -> bool:
            shown = (await _member(project, "GET", answer_id)).json()
            return bool((shown["status"], shown["text"]) == ("failed", "half"))

        await wait_until(has_failed, what="the end of a silent answer")
        assert _code(await worker.write(answer_id, 1, "late")) == (409, "ANSWER_ENDED")
        assert (await worker.end(answer_id, "completed")).json()["status"] == "failed"

        await asyncio.to_thread(own_redis.kill)
        answer_id = (await worker.begin(question))["messageId"]
        for index in range(3):
            response = await worker.write(answer_id, index, "word ")
            assert response.json() == {"stopRequested": False, "nextIndex": index + 1}
        async with _watch(project, short) as client:

            def shows(client: SseClient) -> bool:
                states = _states(client, answer_id)
                return bool(states) and states[-1]["content"]["text"] == "word " * 4

            await client.wait_seq(1)
            await worker.write(answer_id, 3, "word ")
            await client.wait_until(shows, timeout_s=10)
            ended = await worker.end(answer_id, "completed")
            assert ended.json()["status"] == "completed"
            await client.wait_seq(ended.json()["seq"])
        assert message_of(client, ended.json()["seq"])["content"]["text"] == "word " * 4
