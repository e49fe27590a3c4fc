"""A writer that repeats each post until it is acknowledged, and records the acknowledgements.

Every attempt of one post has the same `client_msg_id` and the same body. After an error, a timeout
or a temporary refusal (429, 5xx) it tries the next address. `checker.py` judges the records.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import httpx
import msgspec

from tests.support.api import AppendAnswer
from tests.support.history import Acknowledgement, Post
from tests.support.signing import signed_headers

_RETRY_S = 0.1
_MAX_RETRY_AFTER_S = 1.0
# Text that a faulty encoder of JSON or event streams would break. No NUL: Postgres text cannot
# hold it.
SPICE = ("\n", "\r\n", "\r", "\x0b", "\x1c", "\x85", "\u2028", "\ufeff", "é", "漢", "🧵",
          "data: x\n\n", ": ", "id: 7\n", '"', "\\", "</script>", "\t", "  ")  # fmt: skip


class WriterRefusedError(Exception):
    """A post was refused permanently (a 4xx answer other than 429)."""


class Writer:
    """Posts one message after another to one project, at most `posts_per_s`.

    `timeout_s` bounds one attempt. `impatience` is the share of attempts that the caller gives up
    after some milliseconds, in the middle of a post. `filler_bytes` is added to every text.
    """

    def __init__(
        self,
        name: str,
        base_urls: Sequence[str],
        project_id: str,
        user_id: str,
        *,
        posts_per_s: float,
        seed: int = 0,
        timeout_s: float = 5.0,
        impatience: float = 0.0,
        filler_bytes: int = 0,
        first_url: int = 0,
    ) -> None:
        self.name = name
        self.project_id = project_id
        self.user_id = user_id
        self.posts: list[Post] = []
        self.acknowledgements: list[Acknowledgement] = []
        self.answers: Counter[str] = Counter()  # every attempt: its status, or its error
        self._base_urls = list(base_urls)
        self._turn = first_url
        self._pause_s = 1 / posts_per_s
        self._timeout_s = timeout_s
        self._impatience = impatience
        self._filler = "x" * filler_bytes
        self._random = random.Random(f"{seed}-{name}")
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name=f"writer-{self.name}")
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def finish(self, *, timeout_s: float = 30.0) -> None:
        """Stop after the current post is acknowledged.

        Raises:
            TimeoutError: It was not acknowledged in time.
            WriterRefusedError: It was refused permanently.
        """
        self._stopping.set()
        assert self._task is not None
        async with asyncio.timeout(timeout_s):
            await asyncio.shield(self._task)

    def raise_if_failed(self) -> None:
        """Raise the error that ended the writer early, if there is one."""
        if self._task is not None and self._task.done():
            self._task.result()

    async def _run(self) -> None:
        # verify=False: loading certificates takes long, and all is plain HTTP here.
        async with httpx.AsyncClient(verify=False, trust_env=False) as http:
            next_s = time.monotonic()
            while not self._stopping.is_set():
                post = Post(
                    self.project_id, self.user_id, f"{self.name}-{len(self.posts)}", self._text()
                )
                self.posts.append(post)
                await self._post_until_acknowledged(http, post)
                # Late posts are not caught up: after an outage the rate stays the same.
                next_s = max(next_s + self._pause_s, time.monotonic())
                await self._pause(next_s - time.monotonic())

    async def _post_until_acknowledged(self, http: httpx.AsyncClient, post: Post) -> None:
        target, content = self._request(post)
        body = msgspec.json.encode(content)
        while (wait_s := await self._attempt(http, post, target, body)) is not None:
            self._turn += 1
            await asyncio.sleep(wait_s)

    def _request(self, post: Post) -> tuple[str, dict[str, object]]:
        """Return path and body of a post."""
        body: dict[str, object] = {"message": post.text, "client_msg_id": post.client_msg_id}
        return f"/v1/projects/{self.project_id}/chat/messages", body

    def _acknowledged(self, post: Post, content: bytes) -> None:
        """Record the answer that acknowledges a post."""
        answer = msgspec.json.decode(content, type=AppendAnswer)
        self.acknowledgements.append(
            Acknowledgement(post, answer.seq, answer.message_id, answer.duplicate, time.monotonic())
        )

    async def _attempt(
        self, http: httpx.AsyncClient, post: Post, target: str, body: bytes
    ) -> float | None:
        """Post once; return None when acknowledged, else the seconds until the next attempt."""
        headers = signed_headers("POST", target, self.user_id, body)
        headers["Content-Type"] = "application/json"
        limit_s = self._timeout_s
        if self._random.random() < self._impatience:
            limit_s = self._random.uniform(0.001, 0.02)
        url = self._base_urls[self._turn % len(self._base_urls)] + target
        try:
            async with asyncio.timeout(limit_s):
                response = await http.post(url, content=body, headers=headers, timeout=limit_s)
        except (httpx.TransportError, TimeoutError) as error:
            self.answers[type(error).__name__] += 1
            return _RETRY_S
        self.answers[str(response.status_code)] += 1
        if response.status_code in (200, 201):
            self._acknowledged(post, response.content)
            return None
        if response.status_code == 429 or response.status_code >= 500:
            retry_after_s = float(response.headers.get("Retry-After", _RETRY_S))
            return min(retry_after_s, _MAX_RETRY_AFTER_S)
        raise WriterRefusedError(f"{response.status_code}: {response.text[:300]}")

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            pass

    def _text(self) -> str:
        words = [f"{self.name} {len(self.posts)}"]
        words += self._random.choices(SPICE, k=self._random.randrange(6))
        if self._random.random() < 0.02:
            words.append("x" * self._random.randrange(1, 20_000))
        return " ".join(words) + self._filler
