"""Build statuses of a stream, applied as docs/builds.md tells clients to. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from tests.support.history import Event


class BuildContent(msgspec.Struct, frozen=True, rename="camel"):
    """The content of a `build.status`."""

    build_id: str
    version_id: str
    attempt: int
    progress: float | None
    step: str | None
    message: str | None


class Status(msgspec.Struct, frozen=True, rename="camel"):
    """The data of a `build.status`."""

    project_id: str
    user_id: str
    status: str
    content: BuildContent
    timestamp: str
    metadata: dict[str, int]
    entry_id: str | None = None

    @property
    def change(self) -> tuple[str, int]:
        """Status and attempt."""
        return self.status, self.content.attempt


_RANK = {"queued": 0, "in_progress": 1, "completed": 2, "failed": 2}
_status = msgspec.json.Decoder(Status)


def statuses(events: Sequence[Event], build_id: str | None = None) -> list[Status]:
    """Return the `build.status` events in order, of one build or of all."""
    found = [_status.decode(event.data) for event in events if event.name == "build.status"]
    return [each for each in found if build_id in (None, each.content.build_id)]


def without_repeats(received: Iterable[Status]) -> list[Status]:
    """Drop statuses whose `entryId` was received before."""
    kept: list[Status] = []
    entries: set[str] = set()
    for status in received:
        if status.entry_id is None or status.entry_id not in entries:
            kept.append(status)
        if status.entry_id is not None:
            entries.add(status.entry_id)
    return kept


def changes(events: Sequence[Event], build_id: str) -> list[tuple[str, int]]:
    """Return one build's changes of status, without repeats by `entryId`."""
    seen: list[tuple[str, int]] = []
    for status in without_repeats(statuses(events, build_id)):
        if not seen or seen[-1] != status.change:
            seen.append(status.change)
    return seen


def applied(events: Sequence[Event], build_id: str) -> tuple[str, int] | None:
    """Return the last state of a client that applies statuses by build and attempt."""
    return last_state(statuses(events, build_id))


def last_state(received: Iterable[Status]) -> tuple[str, int] | None:
    """Do the same for statuses that are all of one build."""
    state: tuple[int, int] | None = None
    shown: tuple[str, int] | None = None
    for status in received:
        key = (status.content.attempt, _RANK[status.status])
        if state is None or key >= state:
            state, shown = key, status.change
    return shown
