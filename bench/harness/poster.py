"""Load generator: posts messages over keep-alive HTTP (`python -m bench.harness.poster`).

Open loop at a rate, or closed loop as fast as its connections allow. In an open loop a post's
latency begins when it is due: waiting for a free connection is included, so that a stalled server
does not hide its stall (coordinated omission).
"""

from __future__ import annotations

import asyncio
import time
from array import array
from collections import Counter, deque
from typing import cast

import uvloop

from bench.harness.child import ChildError, Parent, own_cpu_s, write_samples
from bench.harness.http11 import PostBuilder
from bench.harness.marks import make_text
from bench.harness.messages import (
    Expected,
    Failed,
    Go,
    PosterPlan,
    PosterResult,
    Progress,
    Started,
)

_PROGRESS_S = 0.5
_CONNECT_TIMEOUT_S = 20.0
_QUEUE_LIMIT = 100_000


class Post:
    """One request: built when it is due."""

    __slots__ = ("begun_ns", "channel", "number", "request")

    def __init__(self, channel: str, number: int, begun_ns: int, request: bytes) -> None:
        self.channel = channel
        self.number = number
        self.begun_ns = begun_ns
        self.request = request


class PostConnection(asyncio.Protocol):
    """One keep-alive connection, one request at a time."""

    def __init__(self, poster: Poster) -> None:
        self._poster = poster
        self._transport: asyncio.WriteTransport | None = None
        self._post: Post | None = None
        self._answer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not subclasses of asyncio's.
        self._transport = cast(asyncio.WriteTransport, transport)
        self._poster.free(self)

    def send(self, post: Post) -> None:
        """Send a request; the poster is called with its response or its loss."""
        assert self._transport is not None
        self._post = post
        self._answer = b""
        self._transport.write(post.request)

    def data_received(self, data: bytes) -> None:
        self._answer = self._answer + data if self._answer else data
        status = _complete_status(self._answer)
        post = self._post
        if status is None or post is None:
            return
        self._post = None
        self._poster.answered(post, status)
        self._poster.free(self)

    def connection_lost(self, exc: Exception | None) -> None:
        post, self._post = self._post, None
        self._poster.lost(self, post)

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.abort()


class Poster:
    """Holds the connections, the posts that wait for a free one, and the counts."""

    def __init__(self, plan: PosterPlan, parent: Parent) -> None:
        self._plan = plan
        self._parent = parent
        self._builder = PostBuilder(plan.template, f"{plan.host}:{plan.port}")
        self._connections: set[PostConnection] = set()
        self._idle: list[PostConnection] = []
        self._waiting: deque[Post] = deque()
        self._longest_queue = 0
        self._begun = 0
        self._answered = 0
        self._last_answer_ns = 0
        self._errors: Counter[str] = Counter()
        self._posted: Counter[str] = Counter()
        self._number_sums: Counter[str] = Counter()
        self._latencies_us = array("q")
        self._end_ns = 0
        self._running = False
        self._done = asyncio.Event()

    async def run(self) -> None:
        """Connect, wait for `Go`, post, and report."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(_CONNECT_TIMEOUT_S):
            for _ in range(self._plan.concurrency):
                _, connection = await loop.create_connection(
                    lambda: PostConnection(self), self._plan.host, self._plan.port
                )
                self._connections.add(connection)
        self._parent.send(Started())
        await self._parent.receive(Go)
        cpu_before = own_cpu_s()
        begun_ns = time.monotonic_ns()
        self._last_answer_ns = begun_ns
        self._running = True
        progress = asyncio.create_task(self._report_progress())
        try:
            if self._plan.rate:
                await self._post_at_rate()
            else:
                self._end_ns = begun_ns + int(self._plan.duration_s * 1e9)
                for connection in self._idle[:]:
                    self._idle.remove(connection)
                    self.free(connection)
            async with asyncio.timeout(self._plan.duration_s + self._plan.request_timeout_s):
                await self._done.wait()
        finally:
            progress.cancel()
        cpu_s = own_cpu_s() - cpu_before
        for connection in self._connections.copy():
            connection.close()
        write_samples(self._plan.samples_path, self._latencies_us)
        self._parent.send(
            PosterResult(
                posted=self._answered - sum(self._errors.values()),
                errors=dict(self._errors),
                expected={
                    channel: Expected(count, self._number_sums[channel])
                    for channel, count in self._posted.items()
                },
                wall_s=(self._last_answer_ns - begun_ns) / 1e9,
                longest_queue=self._longest_queue,
                cpu_s=cpu_s,
            )
        )

    async def _post_at_rate(self) -> None:
        plan = self._plan
        total = plan.count or int(plan.rate * plan.duration_s)
        start = time.monotonic()
        while self._begun < total:
            due = min(int((time.monotonic() - start) * plan.rate) + 1, total)
            while self._begun < due:
                self._hand_out(self._next())
            await asyncio.sleep(max(start + due / plan.rate - time.monotonic(), 0))
        self._running = False
        self._finish_if_done()

    def _hand_out(self, post: Post) -> None:
        if self._idle:
            self._idle.pop().send(post)
            return
        if len(self._waiting) >= _QUEUE_LIMIT:
            raise ChildError("the server is too slow for this rate: the queue is full")
        self._waiting.append(post)
        self._longest_queue = max(self._longest_queue, len(self._waiting))

    def _next(self) -> Post:
        plan = self._plan
        channel = plan.channels[self._begun % len(plan.channels)]
        number = plan.first_number + self._begun
        self._begun += 1
        begun_ns = time.monotonic_ns()
        text = make_text(number, begun_ns, plan.text_bytes)
        request = self._builder.build(channel, number, text, int(time.time()))
        return Post(channel, number, begun_ns, request)

    def free(self, connection: PostConnection) -> None:
        """Give a free connection its next post."""
        if self._waiting:
            connection.send(self._waiting.popleft())
        elif self._wants_more():
            connection.send(self._next())
        else:
            self._idle.append(connection)
            self._finish_if_done()

    def _wants_more(self) -> bool:
        if not self._running or self._plan.rate:
            return False
        if (self._plan.count and self._begun >= self._plan.count) or (
            not self._plan.count and time.monotonic_ns() >= self._end_ns
        ):
            self._running = False
        return self._running

    def answered(self, post: Post, status: int) -> None:
        """Count a response."""
        self._answered += 1
        self._last_answer_ns = time.monotonic_ns()
        if 200 <= status < 300:
            self._latencies_us.append((self._last_answer_ns - post.begun_ns) // 1000)
            self._posted[post.channel] += 1
            self._number_sums[post.channel] += post.number
        else:
            self._errors[str(status)] += 1

    def lost(self, connection: PostConnection, post: Post | None) -> None:
        """Count the post that was lost with a closed connection."""
        self._connections.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        if post is not None:
            self._answered += 1
            self._errors["connection"] += 1
        if not self._connections:
            self._running = False
            self._errors["connection"] += len(self._waiting)
            self._answered += len(self._waiting)
            self._waiting.clear()
        self._finish_if_done()

    def _finish_if_done(self) -> None:
        if self._begun and not self._running and self._answered >= self._begun:
            self._done.set()

    async def _report_progress(self) -> None:
        while True:
            await asyncio.sleep(_PROGRESS_S)
            self._parent.send(Progress(self._answered))


def _complete_status(answer: bytes) -> int | None:
    """Return the status of a complete HTTP response, or None while it is incomplete."""
    head_end = answer.find(b"\r\n\r\n")
    if head_end < 0:
        return None
    head = answer[:head_end].lower()
    at = head.find(b"\r\ncontent-length:")
    if at >= 0:
        length = int(head[at + 17 :].split(b"\r\n", 1)[0])
        if len(answer) < head_end + 4 + length:
            return None
    elif b"\r\ntransfer-encoding: chunked" in head and not answer.endswith(b"0\r\n\r\n"):
        return None
    return int(answer[9:12])


async def _main() -> None:
    parent = await Parent.connect()
    try:
        await Poster(await parent.receive(PosterPlan), parent).run()
    except (ChildError, OSError, TimeoutError) as error:
        parent.send(Failed(repr(error)))


if __name__ == "__main__":
    uvloop.run(_main())
