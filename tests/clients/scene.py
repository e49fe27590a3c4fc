"""One client in one scenario: its stream, the proxy in front, its program, what it had to get.

The words in which `scenarios.py` is written. Each wait has a deadline and ends at once when the
program ends.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.clients.cutting_proxy import MAX_REQUESTS, CuttingProxy
from tests.clients.program import Broken, Program
from tests.clients.reading import Unreadable
from tests.clients.records import Sent
from tests.clients.target import Channel, Target
from tests.support.waiting import wait_until

# A browser's start, on a busy machine.
START_TIMEOUT_S = 60.0
# A reconnect after the longest pause that the service asks for.
_WAIT_TIMEOUT_S = 40.0


class Stuck(Exception):
    """What a scenario waited for did not come. Says what."""


@dataclass(frozen=True)
class Launch:
    """How a client's program is started; `heartbeat_s` is the interval that it needs."""

    command: Sequence[str]
    folder: Path
    heartbeat_s: int | None = None


class Scene:
    """`sent` is what the client has to get, `fetched` what came from the history instead."""

    def __init__(
        self, target: Target, channel: Channel, proxy: CuttingProxy, launch: Launch
    ) -> None:
        self.target = target
        self.channel = channel
        self.proxy = proxy
        self.sent: list[Sent] = []
        self.fetched: list[Sent] = []
        self.program: Program | None = None
        self.heartbeat_s: int | None = None
        self._launch = launch
        self._looked_at = 0
        self._texts: set[str] = set()
        self._ready = 0
        self._refused = 0

    async def start(self, *, own_heartbeat: bool = True) -> None:
        """Start the program and wait until its stream is open."""
        await self.start_program(own_heartbeat=own_heartbeat)
        await self.ready()

    async def start_program(self, *, own_heartbeat: bool = True) -> None:
        """Start the program; with `own_heartbeat` it asks for the interval that it needs."""
        own = self._launch.heartbeat_s if own_heartbeat else None
        path = self.channel.path(self.heartbeat_s or own)
        url = f"http://127.0.0.1:{self.proxy.port}{path}"
        environment: Mapping[str, str] = {"STREAM_URL": url, "STREAM_TOKEN": self.channel.token}
        program = Program(self._launch.command, self._launch.folder, environment)
        self.program = await program.__aenter__()

    async def close(self) -> None:
        """End the program."""
        if self.program is not None:
            await self.program.__aexit__(None, None, None)

    async def post_before(self, *texts: str) -> None:
        """Post what the client must not get: its stream begins at the head."""
        await self.channel.post(texts)

    async def post(self, *texts: str) -> None:
        """Post what the client has to get."""
        self.sent += await self.channel.post(texts)

    async def ready(self) -> None:
        """Wait until a stream is open again: whatever is posted from here on reaches it."""
        timeout_s = START_TIMEOUT_S if self._ready == 0 else _WAIT_TIMEOUT_S
        name = self.target.ready_event

        def opened() -> int:
            return self.proxy.heads if name is None else self.proxy.events(name)

        await self.wait(lambda: opened() > self._ready, "an open stream", timeout_s=timeout_s)
        self._ready = opened()

    async def refused(self) -> None:
        """Wait until the stream was refused."""
        name = self.target.refused_event or ""
        timeout_s = START_TIMEOUT_S if self._refused == 0 else _WAIT_TIMEOUT_S
        await self.wait(
            lambda: self.proxy.events(name) > self._refused, "a refusal", timeout_s=timeout_s
        )
        self._refused = self.proxy.events(name)

    async def received(self) -> None:
        """Wait until the last message that was posted is surfaced."""
        last = self.sent[-1].text
        await self.wait(lambda: self._surfaced(last), f"message {last[:30]!r}")

    async def fetch_gap(self, last: str) -> None:
        """Wait until the client surfaced which range is not sent, and fetch it.

        A process that is behind replays fewer than were missed and sends the rest live: then there
        is no such range, and `last`, the last missed text, comes instead.
        """
        name = self.target.gap_event

        def ends() -> list[str]:
            assert self.program is not None
            return [event.data or "" for event in self.program.events if event.event == name]

        await self.wait(lambda: bool(ends()) or self._surfaced(last), f"the event {name}")
        if not ends():
            return
        gap = self.channel.gap(ends()[-1])
        if gap is not None:
            self.fetched += await self.channel.history(*gap)

    def _surfaced(self, text: str) -> bool:
        """Look for a message in the events that were not looked at before."""
        assert self.program is not None
        events = self.program.events
        while self._looked_at < len(events):
            event = events[self._looked_at]
            self._looked_at += 1
            if event.data and self.target.reading.is_message(event):
                with contextlib.suppress(Unreadable):  # the verdict's to report
                    self._texts.add(self.target.reading.message(event).text)
        return text in self._texts

    async def wait(
        self, condition: Callable[[], bool], what: str, *, timeout_s: float = _WAIT_TIMEOUT_S
    ) -> None:
        """Wait for a condition. Raises Stuck, or Broken when the program has ended."""

        def holds() -> bool:
            if condition():
                return True
            assert self.program is not None
            self.program.raise_if_broken()
            if self.proxy.fault is not None:
                raise Stuck(f"the proxy could not go on: {self.proxy.fault}")
            if len(self.proxy.requests) > MAX_REQUESTS:
                raise Broken(f"it sent {MAX_REQUESTS} requests")
            return False

        try:
            await wait_until(holds, timeout_s=timeout_s, what=what)
        except TimeoutError as error:
            raise Stuck(str(error)) from None
