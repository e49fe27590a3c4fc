"""The states of a build that streams receive as `build.status`, and reading them back. Pure.

A state with a higher revision replaces those with lower ones. Publishing is in
`builds/statuses.py`.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec

from streams.model.build import Build
from streams.model.events import BuildContent, BuildState, BuildStatus, encode, format_time

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class State(msgspec.Struct, frozen=True):
    """What streams receive of a build at one revision: the data of a `build.status`."""

    build_id: str
    revision: int
    data: bytes


def current(build: Build) -> State:
    """Return the build's current state."""
    content = BuildContent(
        build.id, build.version_id, build.attempt, build.progress, build.step, build.message
    )
    return _state(build, build.revision, build.status, content, build.updated_at)


def states(build: Build) -> list[State]:
    """Return every change of status, oldest first, then the current state if it is newer."""
    changed = []
    for change in build.changes:
        if change.revision == build.revision:
            break
        content = BuildContent(build.id, build.version_id, change.attempt, message=change.message)
        at = _EPOCH + timedelta(microseconds=change.at_us)
        changed.append(_state(build, change.revision, change.status, content, at))
    return [*changed, current(build)]


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


# The fields of a `build.status` that are read back.


class _Content(msgspec.Struct):
    buildId: str  # noqa: N815


class _Metadata(msgspec.Struct):
    revision: int = 0


class _Status(msgspec.Struct):
    content: _Content
    status: str
    metadata: _Metadata = msgspec.field(default_factory=_Metadata)


_status = msgspec.json.Decoder(_Status)


def read_build_status(data: bytes) -> tuple[str, int, bool] | None:
    """Return the build's id, the revision (0 without one) and whether the build has ended.

    None when the data does not have the form of a `build.status` of this library.
    """
    try:
        status = _status.decode(data)
    except (msgspec.DecodeError, RecursionError):
        return None
    ended = status.status in ("completed", "failed")
    return status.content.buildId, status.metadata.revision, ended
