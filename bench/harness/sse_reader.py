"""Load generator: thousands of event streams in one process (`python -m bench.harness.sse_reader`).

Raw asyncio protocols on uvloop; a read costs a few microseconds and no JSON is parsed. The bytes
are parsed in `sse_wire.py`. In the end every connection's count is compared with the posts.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import cast

import uvloop

from bench.harness.child import ChildError, Parent, own_cpu_s, write_samples
from bench.harness.http11 import stream_request
from bench.harness.messages import (
    Complete,
    Expected,
    Failed,
    Finish,
    Go,
    Live,
    Progress,
    ReaderPlan,
    ReaderResult,
    Started,
    Stop,
    StreamGroup,
)
from bench.harness.sse_wire import MarkScanner, ResponseBody, SeqScanner, Tally, WireError

_PROGRESS_S = 0.5
_POLL_S = 0.005


class StreamConnection(asyncio.Protocol):
    """One event stream. `opened` is done when the stream is live, or fails with its error."""

    def __init__(self, tally: Tally, group: StreamGroup, request: bytes, strict: bool) -> None:
        self.group = group
        self.scanner = SeqScanner(tally, group.channel) if strict else MarkScanner(tally)
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._tally = tally
        self._request = request
        self._body = ResponseBody()
        self._transport: asyncio.WriteTransport | None = None
        self._closing = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not subclasses of asyncio's.
        self._transport = cast(asyncio.WriteTransport, transport)
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        now_ns = time.monotonic_ns()
        tally = self._tally
        tally.reads += 1
        tally.received_bytes += len(data)
        try:
            body = self._body.feed(data)
            if body:
                self.scanner.feed(body, now_ns)
        except WireError as error:
            self._fail(str(error))
            return
        if not self.opened.done():
            self._watch_opening()
        if self._body.ended:
            self._fail("the stream ended")

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(f"connection lost: {exc or 'closed by the server'}")

    @property
    def state(self) -> str:
        """The state of the opening, for error messages."""
        if not self._body.status:
            return "no answer yet"
        cursor = getattr(self.scanner, "last_seq", None)
        return f"status {self._body.status}, cursor {cursor}, {self.scanner.count} messages"

    def close(self) -> None:
        """Close without counting it as a violation."""
        self._closing = True
        if self._transport is not None:
            self._transport.abort()

    def _watch_opening(self) -> None:
        if self._body.status not in (0, 200):
            self._fail(f"status {self._body.status}")
        elif isinstance(self.scanner, SeqScanner):
            if self.scanner.refused:
                self._fail("refused or reset")
            elif self.scanner.live:
                self.opened.set_result(None)
        elif self._body.status:
            self.opened.set_result(None)

    def _fail(self, why: str) -> None:
        if self._closing:
            return
        self._closing = True
        self._tally.violate(f"{self.group.channel}: {why}")
        if not self.opened.done():
            self.opened.set_exception(ChildError(f"{self.group.channel}: {why}"))
        if self._transport is not None:
            self._transport.abort()


class Reader:
    """All connections of this process."""

    def __init__(self, plan: ReaderPlan, parent: Parent) -> None:
        self._plan = plan
        self._parent = parent
        self._tally = Tally()
        self._tally.keep_latencies = plan.keep_latencies
        self._connections: list[StreamConnection] = []

    async def run(self) -> None:
        """Open all streams, read until `Stop`, and report."""
        self._parent.send(Started())
        await self._parent.receive(Go)
        begun = time.monotonic()
        await self._open_all()
        self._parent.send(Live(len(self._connections), time.monotonic() - begun))
        cpu_before = own_cpu_s()
        reading_since = time.monotonic()
        progress = asyncio.create_task(self._report_progress())
        try:
            finish = await self._parent.receive(Finish)
            await self._await_all(finish)
        finally:
            progress.cancel()
        self._parent.send(Complete(time.monotonic() - begun))
        cpu_s, wall_s = own_cpu_s() - cpu_before, time.monotonic() - reading_since
        await self._parent.receive(Stop)
        lost = self._check(finish.expected)
        for connection in self._connections:
            connection.close()
        write_samples(self._plan.samples_path, self._tally.latencies_us)
        self._parent.send(
            ReaderResult(
                deliveries=self._tally.deliveries,
                lost=lost,
                violation_count=self._tally.violation_count,
                violations=tuple(self._tally.violations),
                received_bytes=self._tally.received_bytes,
                reads=self._tally.reads,
                cpu_s=cpu_s,
                wall_s=wall_s,
            )
        )

    async def _open_all(self) -> None:
        slots = asyncio.Semaphore(self._plan.connect_concurrency)
        addresses = self._source_addresses()
        async with asyncio.TaskGroup() as tasks:
            for group in self._plan.groups:
                host = f"{self._plan.host}:{self._plan.port}"
                request = stream_request(host, group.path, group.headers)
                for _ in range(group.connections):
                    tasks.create_task(self._open(group, request, slots, next(addresses)))

    async def _open(
        self,
        group: StreamGroup,
        request: bytes,
        slots: asyncio.Semaphore,
        source: tuple[str, int] | None,
    ) -> None:
        connection: StreamConnection | None = None
        async with slots:
            try:
                async with asyncio.timeout(self._plan.connect_timeout_s):
                    connection = await self._connect(group, request, source)
                    await connection.opened
            except TimeoutError as error:
                state = connection.state if connection is not None else "not connected"
                raise ChildError(
                    f"{group.channel}: not live after {self._plan.connect_timeout_s:g} s: {state}"
                ) from error

    async def _connect(
        self, group: StreamGroup, request: bytes, source: tuple[str, int] | None
    ) -> StreamConnection:
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: StreamConnection(self._tally, group, request, self._plan.strict),
            self._plan.host, self._plan.port, local_addr=source,
        )  # fmt: skip
        self._connections.append(connection)
        return connection

    def _source_addresses(self) -> Iterator[tuple[str, int] | None]:
        while True:
            if not self._plan.source_addresses:
                yield None
            for address in self._plan.source_addresses:
                yield (address, 0)

    async def _await_all(self, finish: Finish) -> None:
        deadline = time.monotonic() + finish.timeout_s
        wanted = sum(
            finish.expected[group.channel].count * group.connections
            for group in self._plan.groups
            if group.channel in finish.expected
        )
        # Polled, so that waiting adds no cost to the reading of events.
        while self._tally.deliveries < wanted and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(_POLL_S)

    def _check(self, expected: dict[str, Expected]) -> int:
        lost = 0
        for connection in self._connections:
            channel = connection.group.channel
            want = expected.get(channel, Expected(0, 0))
            scanner = connection.scanner
            lost += max(want.count - scanner.count, 0)
            if scanner.count > want.count:
                self._tally.violate(f"{channel}: {scanner.count} messages of {want.count}")
            if (
                isinstance(scanner, MarkScanner)
                and scanner.count == want.count
                and scanner.number_sum != want.number_sum
            ):
                self._tally.violate(f"{channel}: not the messages that were posted")
        return lost

    async def _report_progress(self) -> None:
        while True:
            await asyncio.sleep(_PROGRESS_S)
            self._parent.send(Progress(self._tally.deliveries))


async def _main() -> None:
    parent = await Parent.connect()
    try:
        await Reader(await parent.receive(ReaderPlan), parent).run()
    except* (ChildError, OSError, TimeoutError) as errors:
        parent.send(Failed(f"{errors.exceptions[0]!r}"))


if __name__ == "__main__":
    uvloop.run(_main())
