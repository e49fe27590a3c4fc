"""What streams showed of builds, as docs/builds.md tells a client to read it. Pure."""

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
    """The `build.status` events, of one build if it is given, in order."""
    found = [_status.decode(event.data) for event in events if event.name == "build.status"]
    return [each for each in found if build_id in (None, each.content.build_id)]


def without_repeats(told: Iterable[Status]) -> list[Status]:
    """Drop every `entryId` that was seen."""
    kept: list[Status] = []
    entries: set[str] = set()
    for status in told:
        if status.entry_id is None or status.entry_id not in entries:
            kept.append(status)
        if status.entry_id is not None:
            entries.add(status.entry_id)
    return kept


def changes(events: Sequence[Event], build_id: str) -> list[tuple[str, int]]:
    """The changes of status of one build as a client sees them that drops repeats by entryId."""
    seen: list[tuple[str, int]] = []
    for status in without_repeats(statuses(events, build_id)):
        if not seen or seen[-1] != status.change:
            seen.append(status.change)
    return seen


def applied(events: Sequence[Event], build_id: str) -> tuple[str, int] | None:
    """Where a client ends that applies statuses by build and attempt, as docs/builds.md says."""
    return last_state(statuses(events, build_id))


def last_state(told: Iterable[Status]) -> tuple[str, int] | None:
    """The same for statuses that are all of one build."""
    state: tuple[int, int] | None = None
    shown: tuple[str, int] | None = None
    for status in told:
        key = (status.content.attempt, _RANK[status.status])
        if state is None or key >= state:
            state, shown = key, status.change
    return shown
