"""docs/protocol.md §6: who is online, seen by another process; no test waits for the grace."""

from __future__ import annotations

import msgspec

from streams.eventlog import EventLog, EventLogConfig
from tests.integration.conftest import OpenLog
from tests.support.follower import following
from tests.support.waiting import wait_until


class _Content(msgspec.Struct):
    status: str


class _Changed(msgspec.Struct, rename="camel"):
    user_id: str
    content: _Content


class _PresenceListener:
    """The presence changes that another process receives, in order."""

    def __init__(self, log: EventLog) -> None:
        self.heard: list[tuple[str, str]] = []
        log.tails.on_notice(self._noticed)

    def _noticed(self, project_id: str, event: str, data: bytes) -> None:
        if event == "presence.changed":
            changed = msgspec.json.decode(data, type=_Changed)
            self.heard.append((changed.user_id, changed.content.status))

    async def wait_for(self, user_id: str, status: str) -> None:
        """Wait until this change was received."""
        await wait_until(
            lambda: (user_id, status) in self.heard, what=f"{user_id} {status} ({self.heard})"
        )


async def test_a_user_who_reconnects_is_not_announced_offline(
    open_log: OpenLog, project: str
) -> None:
    """docs/builds.md: offline comes some time after the last stream ended, if none began since."""
    # A long grace: the reconnect is in time on a slow machine too.
    log, other = await open_log(EventLogConfig(presence_grace_s=1000)), await open_log()
    listener = _PresenceListener(other)
    async with following(other, project):
        await wait_until(lambda: other.tails.lanes.stuck() == [], what="the lane")
        log.presence.opened(project, "u")
        await listener.wait_for("u", "online")
        log.presence.closed(project, "u")
        # One tick writes all that is due: if the end were due, it would come before the marker.
        log.presence.opened(project, "marker-1")
        await listener.wait_for("marker-1", "online")
        log.presence.opened(project, "u")
        log.presence.opened(project, "marker-2")
        await listener.wait_for("marker-2", "online")
        assert listener.heard == [("u", "online"), ("marker-1", "online"), ("marker-2", "online")]
        for user in ("u", "marker-1", "marker-2"):
            log.presence.closed(project, user)


async def test_a_user_who_reconnects_does_not_go_offline_later(
    open_log: OpenLog, project: str
) -> None:
    """A reconnect cancels the offline change that was due."""
    log, other = await open_log(EventLogConfig(presence_grace_s=0)), await open_log()
    listener = _PresenceListener(other)
    async with following(other, project):
        await wait_until(lambda: other.tails.lanes.stuck() == [], what="the lane")
        log.presence.opened(project, "u")
        await listener.wait_for("u", "online")
        log.presence.closed(project, "u")
        log.presence.opened(project, "u")
        log.presence.opened(project, "marker")
        await listener.wait_for("marker", "online")
        assert listener.heard == [("u", "online"), ("marker", "online")]
        log.presence.closed(project, "u")
        await listener.wait_for("u", "offline")
        log.presence.closed(project, "marker")
