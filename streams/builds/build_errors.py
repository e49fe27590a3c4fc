"""Why a build cannot be requested, claimed or changed. HTTP statuses are the service's matter."""

from __future__ import annotations

from streams.model.errors import StreamsError


class LeaseLost(StreamsError):
    """The build is no longer this worker's: another attempt has it, or it has ended."""


class BuildNotFound(StreamsError):
    """There is no such build in this project."""


class BuildEnded(StreamsError):
    """The build has ended; nothing more can happen to it."""


class BuildHeld(StreamsError):
    """Another worker has the build."""


class TooManyBuilds(StreamsError):
    """The project or the user has as many unfinished builds as it may have."""
