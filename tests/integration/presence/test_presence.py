"""PROTOCOL.md §6: who is online, seen by another process; no test here waits out the grace."""

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


class _Ear:
    """What another process is told of who is online, in order."""

    def __init__(self, log: EventLog) -> None:
        self.heard: list[tuple[str, str]] = []
        log.tails.on_notice(self._noticed)

    def _noticed(self, project_id: str, event: str, data: bytes) -> None:
        if event == "presence.changed":
            changed = msgspec.json.decode(data, type=_Changed)
            self.heard.append((changed.user_id, changed.content.status))

    async def wait_for(self, user_id: str, status: str) -> None:
        """Wait until it was told so."""
        await wait_until(
            lambda: (user_id, status) in self.heard, what=f"{user_id} {status} ({self.heard})"
        )


async def test_a_user_who_reconnects_is_not_told_offline(open_log: OpenLog, project: str) -> None:
    """docs/builds.md: offline comes some time after the last stream ended, if none began since."""
    # However slow this machine is, the reconnect is in time.
    log, other = await open_log(EventLogConfig(presence_grace_s=1000)), await open_log()
    ear = _Ear(other)
    async with following(other, project):
        await wait_until(lambda: other.tails.lanes.stuck() == [], what="the lane")
        log.presence.opened(project, "u")
        await ear.wait_for("u", "online")
        log.presence.closed(project, "u")
        # What is due is told in one turn: with the first marker the end had its chance.
        log.presence.opened(project, "marker-1")
        await ear.wait_for("marker-1", "online")
        log.presence.opened(project, "u")
        log.presence.opened(project, "marker-2")
        await ear.wait_for("marker-2", "online")
        assert ear.heard == [("u", "online"), ("marker-1", "online"), ("marker-2", "online")]
        for user in ("u", "marker-1", "marker-2"):
            log.presence.closed(project, user)


async def test_a_user_who_reconnects_does_not_go_offline_later(
    open_log: OpenLog, project: str
) -> None:
    """What was due when the user was away is forgotten when they are back."""
    log, other = await open_log(EventLogConfig(presence_grace_s=0)), await open_log()
    ear = _Ear(other)
    async with following(other, project):
        await wait_until(lambda: other.tails.lanes.stuck() == [], what="the lane")
        log.presence.opened(project, "u")
        await ear.wait_for("u", "online")
        log.presence.closed(project, "u")
        log.presence.opened(project, "u")
        log.presence.opened(project, "marker")
        await ear.wait_for("marker", "online")
        assert ear.heard == [("u", "online"), ("marker", "online")]
        log.presence.closed(project, "u")
        await ear.wait_for("u", "offline")
        log.presence.closed(project, "marker")
