"""Plan mode for acceptance tests: a scripted assistant, questions to it, its answers."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from itertools import count
from typing import Any, NamedTuple

import msgspec

from tests.support.api import Api
from tests.support.completions_server import DONE, CompletionsServer, chunk
from tests.support.history import Event
from tests.support.processes import ServiceProcess
from tests.support.signing import token
from tests.support.sse_client import SseClient

PIECES = [f"word{n} " for n in range(30)]
TEXT = "".join(PIECES)
WHOLE = [*map(chunk, PIECES), DONE]
# With `pause_before=15`.
HALF = "".join(PIECES[:15])

_numbers = count(1)


class Delta(msgspec.Struct, frozen=True, rename="camel"):
    """The content of a `message.delta`."""

    message_id: str
    index: int
    delta: str


class _DeltaData(msgspec.Struct, rename="camel"):
    entry_id: str
    content: Delta


class Assistant(NamedTuple):
    """A scripted completions endpoint, and a service that uses it for its assistant."""

    endpoint: CompletionsServer
    service: ServiceProcess


class OwnProject(NamedTuple):
    """A project for one test, and its API client."""

    id: str
    api: Api


@contextlib.asynccontextmanager
async def alices_project(service: ServiceProcess) -> AsyncIterator[OwnProject]:
    """A project owned by alice, with no open stream yet."""
    async with Api(service.url, "alice") as api:
        project = OwnProject(f"plan-{next(_numbers)}", api)
        await api.create_project(project.id)
        yield project


async def ask(project: OwnProject, **body: object) -> Any:
    """Post a question; return the receipt, and the status code with it."""
    response = await project.api.request(
        "POST", "/v1/chat/unified", {"projectId": project.id, "message": "plan it", **body}
    )
    assert response.status_code in (200, 201), response.text
    return response.json() | {"status_code": response.status_code}


def deltas_of(events: list[Event]) -> list[Delta]:
    """The deltas of all answers, without repeated entry ids."""
    found: dict[str, Delta] = {}
    for event in events:
        if event.name == "message.delta":
            data = msgspec.json.decode(event.data, type=_DeltaData)
            found.setdefault(data.entry_id, data.content)
    return list(found.values())


def message_of(client: SseClient, seq: int) -> Any:
    """The data of the message that the client received with this seq."""
    (event,) = (e for e in client.events("message.new", "message.replay") if e.event_id == str(seq))
    return msgspec.json.decode(event.data)


def watch(
    project: OwnProject, service: ServiceProcess, name: str = "client", from_seq: int = 0
) -> SseClient:
    """A client of the project's stream."""
    return SseClient(name, [service.url], project.id, token("alice"), from_seq=from_seq)
