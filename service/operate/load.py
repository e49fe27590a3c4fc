"""`seqstream load`: many streams and a steady rate of posts through the client, and the verdict.

For users: what a service and all that is before it deliver, seen from where this runs. The posts
are an open loop: each is due at a time of its own, and its latencies begin then, so that a service
that stalls does not hide its stall. Counting is in `load_figures.py`, judging in `load_verdict.py`,
one stream in `load_reader.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence

import msgspec

from service.client import (
    AccessDenied,
    BadRequest,
    Client,
    ClientError,
    Refused,
    Unauthenticated,
    Unavailable,
)
from service.operate.load_figures import LoadCounters, LoadFailed, LoadReport
from service.operate.load_reader import LoadReader, LoadText, seen_message
from service.operate.load_verdict import ProjectJudge, verdict_of

_LATE_NS = 10_000_000
_OPENINGS_PER_S = 200
_TICK_S = 0.25
_POST_TIMEOUT_S = 30.0


class LoadPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What to do. Projects, connections and tokens take turns; `rate` in posts a second, of all.

    `patience_s` is for the streams to be live before the first post, and for the last messages to
    arrive after the last one.
    """

    url: str
    tokens: Sequence[str]
    projects: Sequence[str]
    connections: int
    rate: float
    seconds: float
    senders: int
    text_bytes: int = 200
    patience_s: float = 30.0

    @property
    def posts(self) -> int:
        """How many posts the run has."""
        return int(self.rate * self.seconds)


class LoadRun:
    """One run. `counters` may be looked at while it goes on."""

    def __init__(self, plan: LoadPlan) -> None:
        self.counters = LoadCounters()
        self._plan = plan
        self._run_id = f"load-{uuid.uuid4().hex[:12]}"
        self._judges: dict[str, ProjectJudge] = {}
        self._next = 0

    async def run(self, on_tick: Callable[[LoadCounters], None] = lambda _: None) -> LoadReport:
        """Open the streams, post, wait for the last messages, and judge.

        Raises:
            LoadFailed: no stream could be opened in time.
            ClientError: the service refuses the caller or the projects.
        """
        async with contextlib.AsyncExitStack() as stack:
            # Apart from the streams: a pool with hundreds of connections is slow to choose from.
            posting = [await stack.enter_async_context(self._client(t)) for t in self._plan.tokens]
            reading = [await stack.enter_async_context(self._client(t)) for t in self._plan.tokens]
            ticker = asyncio.create_task(self._tick(on_tick))
            stack.push_async_callback(_ended, [ticker])
            for project in self._plan.projects:
                head = (await posting[0].history(project, limit=1, order="desc")).head_seq
                self._judges[project] = ProjectJudge(project, head, self._plan.posts)
            begun, own_before = time.monotonic(), time.process_time()
            async with self._streams(reading):
                posted_in_s = await self._post_all(posting)
                await self._arrived(posting[0])
            own_cpu = (time.process_time() - own_before) / (time.monotonic() - begun)
            for judge in self._judges.values():
                await self._read_history(posting[0], judge)
            on_tick(self.counters)
        return self._report(posted_in_s, own_cpu)

    def _client(self, token: str) -> Client:
        return Client(self._plan.url, token, timeout_s=_POST_TIMEOUT_S)

    async def _tick(self, on_tick: Callable[[LoadCounters], None]) -> None:
        while True:
            on_tick(self.counters)
            await asyncio.sleep(_TICK_S)

    # The streams.

    @contextlib.asynccontextmanager
    async def _streams(self, clients: Sequence[Client]) -> AsyncIterator[None]:
        """All streams, live; raises what ends one for good."""
        tasks: list[asyncio.Task[None]] = []
        try:
            for number in range(self._plan.connections):
                project = self._plan.projects[number % len(self._plan.projects)]
                client = clients[number // len(self._plan.projects) % len(clients)]
                reader = LoadReader(self._judges[project].reader(), self.counters, self._run_id)
                tasks.append(asyncio.create_task(reader.run(client, project)))
                await asyncio.sleep(1 / _OPENINGS_PER_S)
            await self._live(tasks)
            yield
        finally:
            await _ended(tasks)
        for task in tasks:
            if not task.cancelled():
                task.result()

    async def _live(self, tasks: Sequence[asyncio.Task[None]]) -> None:
        deadline = time.monotonic() + self._plan.patience_s
        while self.counters.live < self._plan.connections:
            for task in tasks:
                if task.done():
                    task.result()
            if time.monotonic() > deadline:
                live, of = self.counters.live, self._plan.connections
                reasons = ", ".join(
                    f"{why} ({count} times)"
                    for why, count in self.counters.interruptions.most_common(3)
                )
                raise LoadFailed(
                    f"{live} of {of} streams are live after {self._plan.patience_s:g} s: "
                    f"{reasons or 'no answer'}"
                )
            await asyncio.sleep(0.02)

    async def _arrived(self, client: Client) -> None:
        """Wait until every stream has reached its project's head, or for as long as is patient."""
        heads = {
            project: (await client.history(project, limit=1, order="desc")).head_seq
            for project in self._judges
        }
        deadline = time.monotonic() + self._plan.patience_s
        while time.monotonic() < deadline:
            if all(
                (reader.reached or 0) >= heads[project]
                for project, judge in self._judges.items()
                for reader in judge.readers
            ):
                return
            await asyncio.sleep(0.02)

    # The posts.

    async def _post_all(self, clients: Sequence[Client]) -> float:
        """Post at the rate; return how long it took, in seconds."""
        begun_ns = time.monotonic_ns()
        deadline_s = time.monotonic() + self._plan.seconds + self._plan.patience_s
        counters = self.counters
        try:
            async with asyncio.TaskGroup() as senders:
                for number in range(self._plan.senders):
                    client = clients[number % len(clients)]
                    senders.create_task(self._sender(client, begun_ns, deadline_s))
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        counters.unsent = self._plan.posts - counters.begun
        return (time.monotonic_ns() - begun_ns) / 1e9

    async def _sender(self, client: Client, begun_ns: int, deadline_s: float) -> None:
        plan, counters = self._plan, self.counters
        while self._next < plan.posts and time.monotonic() < deadline_s:
            number = self._next
            self._next += 1
            due_ns = begun_ns + int(number * 1e9 / plan.rate)
            wait_ns = due_ns - time.monotonic_ns()
            if wait_ns > 0:
                await asyncio.sleep(wait_ns / 1e9)
            now_ns = time.monotonic_ns()
            counters.due = min(int((now_ns - begun_ns) * plan.rate / 1e9) + 1, plan.posts)
            counters.begun += 1
            counters.late += now_ns - due_ns > _LATE_NS
            await self._post(client, number, due_ns)

    async def _post(self, client: Client, number: int, due_ns: int) -> None:
        project = self._plan.projects[number % len(self._plan.projects)]
        text = LoadText(self._run_id, number, due_ns)
        try:
            receipt = await client.send(
                project,
                text.padded(self._plan.text_bytes),
                client_msg_id=f"{self._run_id}-{number}",
            )
        except (Unauthenticated, AccessDenied, BadRequest):
            # It would be the same for all others.
            raise
        except ClientError as error:
            name = error.code if isinstance(error, Refused) else type(error).__name__
            self.counters.note_error(error.last if isinstance(error, Unavailable) else name)
            return
        self.counters.posted += 1
        self.counters.post_latency.record((time.monotonic_ns() - due_ns) // 1000)
        self._judges[project].acknowledged(receipt.seq, number)

    # The end.

    async def _read_history(self, client: Client, judge: ProjectJudge) -> None:
        after, head = judge.base, judge.base
        while True:
            page = await client.history(judge.project_id, after=after, limit=500)
            head = page.head_seq
            for message in page.messages:
                seen = seen_message(message.json)
                text = LoadText.parse(message.text, self._run_id)
                judge.stored(message.seq, seen.digest, None if text is None else text.number)
            after = max(page.next_after_seq or 0, after)
            if not page.has_more or not page.messages:
                break
        judge.finish(head)

    def _report(self, posted_in_s: float, own_cpu: float) -> LoadReport:
        counters = self.counters
        verdict = verdict_of(self._judges.values())
        return LoadReport(
            clean=verdict.clean and not counters.post_errors and not counters.unsent,
            connections=self._plan.connections,
            seconds=round(posted_in_s, 3),
            posted=counters.posted,
            posts_per_second=round(counters.posted / posted_in_s, 1),
            late=counters.late,
            unsent=counters.unsent,
            deliveries=counters.deliveries,
            deliveries_per_second=round(counters.deliveries / posted_in_s, 1),
            received_bytes=counters.received_bytes,
            reconnects=counters.reconnects,
            post_latency=counters.post_latency.summary(),
            event_latency=counters.event_latency.summary(),
            post_errors=dict(counters.post_errors),
            interruptions=dict(counters.interruptions),
            own_cpu=round(own_cpu, 2),
            verdict=verdict,
        )


async def _ended(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
