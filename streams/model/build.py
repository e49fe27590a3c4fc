"""A build as a value: its row, and what streams are told of it. Pure.

A build's `revision` grows with everything that streams are told; a state with a higher one
replaces those with lower ones. Statements are in `builds.py`, publishing in `statuses.py`.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec

from streams.model.events import BuildContent, BuildState, BuildStatus, encode, format_time

MAX_ATTEMPTS = 3
LEASE_S = 30.0
MAX_TEXT = 500
"""Characters of a step or a message."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Change(msgspec.Struct, frozen=True):
    """A change of status, as it is kept for streams that have not been told."""

    revision: int
    status: BuildState
    attempt: int
    at_us: int
    message: str | None = None


class Build(msgspec.Struct, frozen=True):
    """A build's row. `result` and `metadata` are JSON; `message_seq` is the message it is for."""

    id: str
    project_id: str
    version_id: str
    user_id: str
    message_seq: int
    message_id: str
    request: str
    metadata: bytes | None
    status: BuildState
    attempt: int
    progress: float | None
    step: str | None
    message: str | None
    worker_id: str | None
    cancelled: bool
    result: bytes | None
    end_seq: int | None
    revision: int
    changes: tuple[Change, ...]
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    ended_at: datetime | None

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.status in ("completed", "failed")


class State(msgspec.Struct, frozen=True):
    """What streams are told of a build at one revision: the data of a `build.status`."""

    build_id: str
    revision: int
    data: bytes


def current(build: Build) -> State:
    """The state of the build now."""
    content = BuildContent(
        build.id, build.version_id, build.attempt, build.progress, build.step, build.message
    )
    return _state(build, build.revision, build.status, content, build.updated_at)


def states(build: Build) -> list[State]:
    """Every change of status, oldest first, then the state now if it is newer than they are."""
    told = []
    for change in build.changes:
        if change.revision == build.revision:
            break
        content = BuildContent(build.id, build.version_id, change.attempt, message=change.message)
        at = _EPOCH + timedelta(microseconds=change.at_us)
        told.append(_state(build, change.revision, change.status, content, at))
    return [*told, current(build)]


def last_change(build: Build) -> int:
    """The revision of the last change of status; above it there is progress alone."""
    return build.changes[-1].revision


def _state(
    build: Build, revision: int, status: BuildState, content: BuildContent, at: datetime
) -> State:
    data = BuildStatus(
        project_id=build.project_id,
        user_id=build.user_id,
        status=status,
        content=content,
        timestamp=format_time(at),
        metadata={"revision": revision},
    )
    return State(build.id, revision, encode(data))


class _Content(msgspec.Struct):
    buildId: str  # noqa: N815


class _Metadata(msgspec.Struct):
    revision: int = 0


class _Status(msgspec.Struct):
    content: _Content
    status: str
    metadata: _Metadata = msgspec.field(default_factory=_Metadata)


_status = msgspec.json.Decoder(_Status)


def told_by(data: bytes) -> tuple[str, int, bool] | None:
    """Read a `build.status`: build, revision (0: it has none) and whether the build has ended.

    None when it is not in the form of this library.
    """
    try:
        status = _status.decode(data)
    except msgspec.DecodeError:
        return None
    ended = status.status in ("completed", "failed")
    return status.content.buildId, status.metadata.revision, ended


def clean(text: str, limit: int = MAX_TEXT) -> str:
    """Make any text fit to be stored and sent: no U+0000, no lone surrogates, not too long."""
    return text.replace("\x00", "").encode("utf-8", "replace").decode()[:limit]
