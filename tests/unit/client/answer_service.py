"""A service that takes one answer (docs/protocol.md §4 and §5), as a transport of httpx.

It loses responses, refuses and forgets as a test says. The real one is in tests/acceptance.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

import httpx
import msgspec

from service.client import Client
from tests.support.virtual_time import run_in_virtual_time

Fault = httpx.Response | httpx.TransportError | float
"""Instead of an answer; a number is the seconds until an answer that is then lost."""

Main = Callable[["AnswerService", Client], Coroutine[Any, Any, Any]]


class Sent(NamedTuple):
    """A request with pieces; `first` is its index."""

    at_s: float
    first: int
    parts: list[dict[str, Any]]


class AnswerService:
    """Takes the answer `a1` of project `p`. `faults` come before, or for a number after, work."""

    def __init__(self) -> None:
        self.pieces: list[dict[str, Any]] = []
        self.sent: list[Sent] = []
        self.begun: list[dict[str, Any]] = []
        self.ends: list[dict[str, Any]] = []
        self.status = "in_progress"
        self.faults: list[Fault] = []
        self.under_way = 0

    @property
    def text(self) -> str:
        """The answer's text."""
        return "".join(piece.get("delta", "") for piece in self.pieces)

    async def handle(self, request: httpx.Request) -> httpx.Response:
        """Answer a request."""
        assert self.under_way == 0, "one request at a time"
        self.under_way += 1
        try:
            return await self._handle(request)
        finally:
            self.under_way -= 1

    async def _handle(self, request: httpx.Request) -> httpx.Response:
        fault = self.faults.pop(0) if self.faults else None
        if isinstance(fault, httpx.Response):
            return fault
        if isinstance(fault, httpx.TransportError):
            raise fault
        body = msgspec.json.decode(request.content)
        action = request.url.path.removeprefix("/v1/projects/p/answers").removeprefix("/a1")
        answer = {"": self._begin, "/deltas": self._take, "/end": self._end}[action](body)
        if fault is not None:
            await asyncio.sleep(fault)
            raise httpx.ReadError("lost")
        return answer

    def _begin(self, body: dict[str, Any]) -> httpx.Response:
        self.begun.append(body)
        return httpx.Response(
            200,
            json={
                "messageId": "a1", "projectId": "p", "replyTo": body["replyTo"],
                "status": self.status, "nextIndex": len(self.pieces),
            },
        )  # fmt: skip

    def _take(self, body: dict[str, Any]) -> httpx.Response:
        index, parts, expected = body["index"], body["parts"], len(self.pieces)
        self.sent.append(Sent(asyncio.get_running_loop().time(), index, parts))
        if self.status == "stopped":
            return httpx.Response(200, json={"stopRequested": True, "nextIndex": expected})
        if self.status != "in_progress":
            return refusal(409, "ANSWER_ENDED")
        if index > expected:
            return refusal(409, "INDEX_GAP", {"expected": expected})
        self.pieces += parts[expected - index :]
        return httpx.Response(200, json={"stopRequested": False, "nextIndex": len(self.pieces)})

    def _end(self, body: dict[str, Any]) -> httpx.Response:
        self.ends.append(body)
        if self.status == "in_progress":
            self.status = body["status"]
        return httpx.Response(200, json={"messageId": "a1", "status": self.status, "seq": 7})


def refusal(status: int, code: str, details: object = None) -> httpx.Response:
    """Return an error as the service writes it."""
    body = {"error": "no", "code": code, "details": details, "requestId": "r"}
    return httpx.Response(status, json=body)


def with_service(main: Main, service: AnswerService | None = None) -> AnswerService:
    """Run a test against a service, in virtual time; return the service."""
    service = service or AnswerService()

    async def run() -> None:
        transport = httpx.MockTransport(service.handle)
        async with (
            httpx.AsyncClient(transport=transport, trust_env=False) as http,
            Client("http://h", "t", http=http) as client,
        ):
            await main(service, client)
        assert len(asyncio.all_tasks()) == 1, "a task was left"

    run_in_virtual_time(run())
    return service
