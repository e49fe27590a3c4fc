"""Judge the builds that clients saw: G6 and G7 of docs/protocol.md §2, and §8.

Pure. Messages are judged by `checker.py`, except for those that end builds, which are judged here.
A client applies statuses as docs/builds.md says; a build's end also reaches it as a message.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum

import msgspec

from tests.support.build_events import Status, last_state, statuses, without_repeats
from tests.support.history import (
    BuildAcknowledgement,
    BuildEnd,
    BuildRow,
    ClientHistory,
    Connection,
    LogRow,
    Post,
    log_row,
)
from tests.support.violations import Kind, Violation

BUILD_KINDS = frozenset({Kind.BUILD_UNENDED, Kind.BUILD_REPEAT, Kind.BUILD_WRONG, Kind.STATUS_LOST})


# The window has 200 messages and may be trimmed during a replay: one of up to 150 is surely in it.
_SURELY_IN_WINDOW = 150


class StatusGuarantee(Enum):
    """Which clients must have received a build's statuses, among those that keep up.

    Every client learns of every build's end nevertheless, by its message.
    """

    ALL = "all: the window was never lost, so missed statuses are replayed (G6)"
    OPEN = "clients whose stream was open at the build's end, with or without Redis (G7)"
    LAST = "as OPEN, but only the last status: the window lost entries or was reset to old ones"
    NONE = "none: clients fell behind the window"


def check_builds(
    *,
    requests: Iterable[Post],
    acknowledgements: Sequence[BuildAcknowledgement],
    builds: Sequence[BuildRow],
    clients: Sequence[ClientHistory],
    log: Sequence[LogRow],
    guarantee: StatusGuarantee,
) -> list[Violation]:
    """Judge one project's builds. `builds` is their state after all of them have ended."""
    rows = {build.build_id: build for build in builds}
    violations = [
        *_check_acknowledgements(acknowledgements, rows),
        *_check_ends({(post.user_id, post.client_msg_id) for post in requests}, rows, log),
    ]
    for client in clients:
        violations += _check_client(client, rows, guarantee)
    return violations


def _check_acknowledgements(
    acknowledgements: Sequence[BuildAcknowledgement], rows: dict[str, BuildRow]
) -> Iterable[Violation]:
    first: dict[Post, str] = {}
    for answer in acknowledgements:
        earlier = first.setdefault(answer.post, answer.build_id)
        if earlier != answer.build_id:
            detail = f"{answer.post.client_msg_id} was build {earlier} before"
            yield Violation(Kind.ACK_TWICE, None, detail)
    for build_id in first.values():
        if build_id not in rows:
            yield Violation(Kind.ACK_MISSING, None, f"there is no build {build_id}")


def _check_ends(
    requests: set[tuple[str, str]], rows: dict[str, BuildRow], log: Sequence[LogRow]
) -> Iterable[Violation]:
    """Every build belongs to a message that requested it, and has exactly one end message."""
    by_seq = {row.seq: row for row in log}
    ends: dict[str, list[tuple[int, BuildEnd]]] = {}
    for row in log:
        if row.build_end is not None:
            ends.setdefault(row.build_end.build_id, []).append((row.seq, row.build_end))
            if row.build_end.build_id not in rows:
                yield Violation(Kind.INVENTED, row.seq, "it ends a build that there is not")
    for build in rows.values():
        asking = by_seq.get(build.message_seq)
        if asking is None or (asking.user_id, asking.client_msg_id or "") not in requests:
            detail = f"no post requested build {build.build_id}"
            yield Violation(Kind.INVENTED, build.message_seq, detail)
        found = ends.get(build.build_id, [])
        if not found:
            detail = f"build {build.build_id} ({build.status}) has no end message"
            yield Violation(Kind.BUILD_UNENDED, None, detail)
            continue
        for seq, _ in found[1:]:
            yield Violation(Kind.BUILD_REPEAT, seq, f"build {build.build_id} has ended before")
        seq, end = found[0]
        if (seq, end.status, end.attempt) != (build.end_seq, build.status, build.attempt):
            detail = f"it ends as {end.status} in attempt {end.attempt}, and the build is {build}"
            yield Violation(Kind.BUILD_WRONG, seq, detail)


def _check_client(
    client: ClientHistory, rows: dict[str, BuildRow], guarantee: StatusGuarantee
) -> Iterable[Violation]:
    received: dict[str, list[Status]] = {build_id: [] for build_id in rows}
    events = [event for connection in client.connections for event in connection.events]
    # Across builds: a status with the entryId of another build's is dropped, as clients drop it.
    for status in without_repeats(statuses(events)):
        if status.content.build_id in received:
            received[status.content.build_id].append(status)
        else:
            detail = f"a status of build {status.content.build_id}, which does not exist"
            yield Violation(Kind.INVENTED, None, detail, client.name)
    arrivals = [_arrivals(connection) for connection in client.connections]
    for build in rows.values():
        final = (build.status, build.attempt)
        state = last_state(received[build.build_id])
        where = f"build {build.build_id}: "
        if state is not None and state != final and _is_end(state):
            yield Violation(
                Kind.BUILD_WRONG, None, f"{where}received {state}, not {final}", client.name
            )
            continue
        if not client.keeps_up or not _must_receive_end(build, arrivals, guarantee):
            continue
        if state != final:
            yield Violation(
                Kind.STATUS_LOST, None, f"{where}received {state}, not {final}", client.name
            )
            continue
        if guarantee is StatusGuarantee.LAST:
            # Earlier statuses may be lost: the last one replaces them.
            continue
        if any(_was_open_throughout(build, arrived) for arrived in arrivals):
            missed = _changes(build) - {status.change for status in received[build.build_id]}
            if missed:
                detail = f"{where}never received {sorted(missed)}"
                yield Violation(Kind.STATUS_LOST, None, detail, client.name)


def _is_end(state: tuple[str, int]) -> bool:
    return state[0] in ("completed", "failed")


class _Opened(msgspec.Struct, rename="camel"):
    head_seq: int
    cursor: int | None = None


_BEYOND = "replayed from beyond the window"


def _arrivals(connection: Connection) -> dict[int, str]:
    """Return how each message was received on a connection: its event's name, or `_BEYOND`."""
    found: dict[int, str] = {}
    missed = 0
    for event in connection.events:
        if event.name == "stream.open":
            opened = msgspec.json.decode(event.data, type=_Opened)
            missed = opened.head_seq - (opened.head_seq if opened.cursor is None else opened.cursor)
        if event.name == "message.replay" and missed > _SURELY_IN_WINDOW:
            found[int(event.event_id or 0)] = _BEYOND
        elif event.name in ("message.new", "message.replay"):
            try:
                found[log_row(event.data).seq] = event.name
            except msgspec.DecodeError:
                # Reported by `checker.py`.
                continue
    return found


def _must_receive_end(
    build: BuildRow, arrivals: Sequence[dict[int, str]], guarantee: StatusGuarantee
) -> bool:
    """Tell whether the client must have received the last status, besides the end message."""
    if build.end_seq is None or guarantee is StatusGuarantee.NONE or not arrivals:
        return False
    if guarantee is StatusGuarantee.ALL:
        # No entry: announced as not sent, or before the connection's cursor.
        return any(arrived.get(build.end_seq, _BEYOND) != _BEYOND for arrived in arrivals)
    return arrivals[-1].get(build.end_seq) == "message.new"


def _was_open_throughout(build: BuildRow, arrived: dict[int, str]) -> bool:
    return (
        arrived.get(build.message_seq) == "message.new"
        and build.end_seq is not None
        and arrived.get(build.end_seq) == "message.new"
    )


def _changes(build: BuildRow) -> set[tuple[str, int]]:
    """Return every change of status that the build went through."""
    begun = {("in_progress", attempt) for attempt in range(1, build.attempt + 1)}
    return {("queued", 0), *begun, (build.status, build.attempt)}
