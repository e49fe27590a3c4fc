"""A durable, resumable event log per project, as a library. Start at `EventLog`.

Three tiers of one log: Postgres has every message (the log), a Redis Stream the newest (the
window), the memory of this process the newest of each project that it reads (the tail). It must
not import the service, nor a web framework.
"""

from streams.builds.build_errors import (
    BuildEnded,
    BuildHeld,
    BuildNotFound,
    LeaseLost,
    TooManyBuilds,
)
from streams.builds.build_values import BuildBounds
from streams.builds.lifecycle import Builds
from streams.config import EventLogConfig
from streams.eventlog import EventLog
from streams.log.log import Appended, Page
from streams.model.build import Build
from streams.model.errors import (
    Closed,
    IdempotencyMismatch,
    InvalidInput,
    LogUnavailable,
    Overloaded,
    PayloadTooLarge,
    ProjectExists,
    ProjectNotFound,
    StreamsError,
    Unavailable,
    WindowUnavailable,
)
from streams.model.events import BuildContent, BuildStatus, Content, Event, Message, NewMessage
from streams.model.ids import EntryId, Seq
from streams.runtime.observer import Observer

__all__ = [
    "Appended",
    "Build",
    "BuildBounds",
    "BuildContent",
    "BuildEnded",
    "BuildHeld",
    "BuildNotFound",
    "BuildStatus",
    "Builds",
    "Closed",
    "Content",
    "EntryId",
    "Event",
    "EventLog",
    "EventLogConfig",
    "IdempotencyMismatch",
    "InvalidInput",
    "LeaseLost",
    "LogUnavailable",
    "Message",
    "NewMessage",
    "Observer",
    "Overloaded",
    "Page",
    "PayloadTooLarge",
    "ProjectExists",
    "ProjectNotFound",
    "Seq",
    "StreamsError",
    "TooManyBuilds",
    "Unavailable",
    "WindowUnavailable",
]
