"""The checker of builds accepts correct histories and reports the right violation of others."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest

from tests.support.build_checker import StatusGuarantee, check_builds
from tests.support.checker import check
from tests.support.history import (
    BuildAcknowledgement,
    BuildRow,
    ClientHistory,
    Connection,
    Event,
    LogRow,
    Post,
    log_row,
)
from tests.support.violations import Kind

# One build: message 2 requests it, message 4 ends it; 1, 3 and 5 are other messages.
_ASK = Post("p", "w", "c2", "make it")
_DONE = BuildRow("b", "completed", 1, 2, 4)


def _message(seq: int) -> bytes:
    return msgspec.json.encode(
        {
            "seq": seq,
            "messageId": f"m{seq}",
            "client_msg_id": f"c{seq}",
            "userId": "w",
            "content": {"text": _ASK.text if seq == 2 else f"text {seq}"},
            "metadata": {"build_id": None, "response_data": None},
        }
    )


def _end(
    seq: int = 4, *, build_id: str = "b", ending: str = "build_completed", attempt: int = 1
) -> bytes:
    return msgspec.json.encode(
        {
            "seq": seq,
            "messageId": f"m{seq}",
            "client_msg_id": None,
            "userId": "w",
            "content": {"text": "done"},
            "metadata": {
                "build_id": build_id,
                "response_data": {"type": ending, "attempt": attempt},
            },
        }
    )


def _log(*data: bytes) -> list[LogRow]:
    rows = data or (_message(1), _message(2), _message(3), _end(), _message(5))
    return [log_row(row) for row in rows]


def _new(data: bytes, name: str = "message.new") -> Event:
    return Event(name, str(log_row(data).seq), data)


def _status(
    status: str, attempt: int, entry_id: str | None, *, build_id: str = "b", event_id: str = ""
) -> Event:
    data: dict[str, object] = {
        "projectId": "p",
        "userId": "w",
        "status": status,
        "content": {
            "buildId": build_id,
            "versionId": "v",
            "attempt": attempt,
            "progress": None,
            "step": None,
            "message": None,
        },
        "timestamp": "",
        "metadata": {},
    }
    if entry_id is not None:
        data["entryId"] = entry_id
    return Event("build.status", event_id, msgspec.json.encode(data))


def _opened(head: int, cursor: int) -> Event:
    start = head if cursor is None else cursor
    return Event(
        "stream.open", str(start), msgspec.json.encode({"headSeq": head, "cursor": cursor})
    )


_OPENING = _opened(0, 0)
_QUEUED = _status("queued", 0, "2-1")
_BEGUN = _status("in_progress", 1, "2-2")
_COMPLETED = _status("completed", 1, "3-1")
_FIRST = [_OPENING, _new(_message(1)), _new(_message(2))]
_LAST = [_new(_end()), _new(_message(5))]
_OPEN = [*_FIRST, _QUEUED, _BEGUN, _new(_message(3)), _COMPLETED, *_LAST]


def _kinds(
    *connections: Sequence[Event],
    builds: Sequence[BuildRow] = (_DONE,),
    log: Sequence[LogRow] | None = None,
    acknowledgements: Sequence[BuildAcknowledgement] = (BuildAcknowledgement(_ASK, "b"),),
    guarantee: StatusGuarantee = StatusGuarantee.OPEN,
    keeps_up: bool = True,
) -> list[Kind]:
    client = ClientHistory(
        "a",
        "p",
        tuple(Connection("0", tuple(events)) for events in connections),
        keeps_up=keeps_up,
    )
    found = check_builds(
        requests=[_ASK],
        acknowledgements=acknowledgements,
        builds=builds,
        clients=[client],
        log=_log() if log is None else log,
        guarantee=guarantee,
    )
    return [violation.kind for violation in found]


_RESUMED = [_OPENING, _new(_message(3), "message.replay"), _new(_end(), "message.replay")]


def _without(*left_out: Event) -> list[Event]:
    return [event for event in _OPEN if event not in left_out]


GOOD: dict[str, tuple[StatusGuarantee, list[list[Event]]]] = {
    "all of it, live": (StatusGuarantee.ALL, [_OPEN]),
    "repeats": (
        StatusGuarantee.ALL,
        [[*_OPEN, _QUEUED, _COMPLETED, _status("in_progress", 1, "5-1")]],
    ),
    "from the database, without entryId": (
        StatusGuarantee.OPEN,
        [
            [
                *_FIRST, _status("queued", 0, None), _status("in_progress", 1, None),
                _new(_message(3)), *_LAST, _status("completed", 1, None),
            ]
        ],
    ),
    "the end on the next connection": (
        StatusGuarantee.ALL,
        [[*_FIRST, _QUEUED], [_OPENING, _BEGUN, _COMPLETED, *_RESUMED[1:]]],
    ),
    "away at the end, and Redis lost the statuses": (
        StatusGuarantee.OPEN,
        [[*_FIRST, _QUEUED], _RESUMED],
    ),
    "away at the end, which was announced as not sent": (
        StatusGuarantee.ALL,
        [[*_FIRST, _QUEUED], [_OPENING, _new(_message(5))]],
    ),
    "away at the end, and for longer than the window is": (
        StatusGuarantee.ALL,
        [[*_FIRST, _QUEUED], [_opened(300, 2), *_RESUMED[1:]]],
    ),
    "a change while it was away": (
        StatusGuarantee.ALL,
        [[*_FIRST, _QUEUED], [_OPENING, _new(_message(3)), _COMPLETED, *_LAST]],
    ),
    "an outdated change lost by a window that went back in time": (
        StatusGuarantee.LAST,
        [_without(_QUEUED)],
    ),
    "never opened": (StatusGuarantee.ALL, []),
}  # fmt: skip


@pytest.mark.parametrize(("guarantee", "connections"), GOOD.values(), ids=GOOD.keys())
def test_a_correct_history_passes(
    guarantee: StatusGuarantee, connections: list[list[Event]]
) -> None:
    """G6, G7: histories that a client may see."""
    assert _kinds(*connections, guarantee=guarantee) == []


BAD_STREAMS: dict[str, tuple[Kind, StatusGuarantee, list[list[Event]]]] = {
    "the end was not received": (Kind.STATUS_LOST, StatusGuarantee.OPEN, [_without(_COMPLETED)]),
    "the last change was not received": (
        Kind.STATUS_LOST,
        StatusGuarantee.OPEN,
        [_without(_QUEUED, _COMPLETED)],
    ),
    "the first change was not received": (
        Kind.STATUS_LOST,
        StatusGuarantee.OPEN,
        [_without(_QUEUED)],
    ),
    "a change was not received": (Kind.STATUS_LOST, StatusGuarantee.OPEN, [_without(_BEGUN)]),
    "the end is missing from a window that was reset to an old state": (
        Kind.STATUS_LOST,
        StatusGuarantee.LAST,
        [_without(_COMPLETED)],
    ),
    "no status was received": (
        Kind.STATUS_LOST,
        StatusGuarantee.OPEN,
        [_without(_QUEUED, _BEGUN, _COMPLETED)],
    ),
    "another end was received": (
        Kind.BUILD_WRONG,
        StatusGuarantee.NONE,
        [[*_without(_COMPLETED), _status("failed", 1, "5-1")]],
    ),
    "the end was received with another attempt": (
        Kind.BUILD_WRONG,
        StatusGuarantee.NONE,
        [[*_OPEN, _status("completed", 2, "5-1")]],
    ),
    "a status of an attempt that does not exist": (
        Kind.STATUS_LOST,
        StatusGuarantee.OPEN,
        [[*_OPEN, _status("in_progress", 2, "5-1")]],
    ),
    "two statuses under one entryId": (
        Kind.STATUS_LOST,
        StatusGuarantee.OPEN,
        [[*_without(_COMPLETED), _status("completed", 1, "2-2")]],
    ),
    "the replay lacks the status, and the window was there": (
        Kind.STATUS_LOST,
        StatusGuarantee.ALL,
        [[*_FIRST, _QUEUED, _BEGUN], _RESUMED],
    ),
    "a build that there is not": (
        Kind.INVENTED,
        StatusGuarantee.NONE,
        [[*_OPEN, _status("queued", 0, "5-1", build_id="x")]],
    ),
}


@pytest.mark.parametrize(
    ("kind", "guarantee", "connections"), BAD_STREAMS.values(), ids=BAD_STREAMS.keys()
)
def test_a_broken_stream_fails_for_one_reason(
    kind: Kind, guarantee: StatusGuarantee, connections: list[list[Event]]
) -> None:
    """G6, G7: every wrong stream is reported, with its own kind of violation only."""
    assert set(_kinds(*connections, guarantee=guarantee)) == {kind}


def test_a_client_that_does_not_keep_up_may_miss_statuses_and_no_end() -> None:
    """G6: statuses are in the window only; those that it receives must be correct nevertheless."""
    assert _kinds(_without(_COMPLETED), keeps_up=False, guarantee=StatusGuarantee.ALL) == []
    wrong = [*_without(_COMPLETED), _status("failed", 1, "5-1")]
    assert _kinds(wrong, keeps_up=False, guarantee=StatusGuarantee.ALL) == [Kind.BUILD_WRONG]


_UNENDED = (_message(1), _message(2), _message(3))
_QUIET: tuple[Event, ...] = ()

BAD_LOGS: dict[str, tuple[Kind, Sequence[BuildRow], list[LogRow]]] = {
    "no end message": (Kind.BUILD_UNENDED, [_DONE], _log(*_UNENDED)),
    "still queued": (
        Kind.BUILD_UNENDED,
        [BuildRow("b", "queued", 0, 2, None)],
        _log(*_UNENDED),
    ),
    "two end messages": (Kind.BUILD_REPEAT, [_DONE], _log(*_UNENDED, _end(), _end(5))),
    "two different ends": (
        Kind.BUILD_REPEAT,
        [_DONE],
        _log(*_UNENDED, _end(), _end(5, ending="build_failed")),
    ),
    "another end than the build has": (
        Kind.BUILD_WRONG,
        [_DONE],
        _log(*_UNENDED, _end(ending="build_failed")),
    ),
    "the end of another attempt": (Kind.BUILD_WRONG, [_DONE], _log(*_UNENDED, _end(attempt=2))),
    "the build names another end message": (
        Kind.BUILD_WRONG,
        [msgspec.structs.replace(_DONE, end_seq=5)],
        _log(),
    ),
    "the end of no build": (
        Kind.INVENTED,
        [_DONE],
        _log(*_UNENDED, _end(), _end(5, build_id="x")),
    ),
    "a build that nobody requested": (
        Kind.INVENTED,
        [_DONE, BuildRow("x", "completed", 1, 3, 5)],
        _log(*_UNENDED, _end(), _end(5, build_id="x")),
    ),
    "acknowledged, and there is none": (
        Kind.ACK_MISSING,
        [],
        _log(_message(1), _message(2)),
    ),
}


@pytest.mark.parametrize(("kind", "builds", "log"), BAD_LOGS.values(), ids=BAD_LOGS.keys())
def test_a_broken_log_fails_for_one_reason(
    kind: Kind, builds: Sequence[BuildRow], log: list[LogRow]
) -> None:
    """§8: every build has exactly one end message, which has the build's status and attempt."""
    assert _kinds(_QUIET, builds=builds, log=log, guarantee=StatusGuarantee.NONE) == [kind]


def test_one_post_is_one_build() -> None:
    """G5: a repeated post gets the first result."""
    assert (
        _kinds(
            _OPEN,
            acknowledgements=[BuildAcknowledgement(_ASK, "b"), BuildAcknowledgement(_ASK, "b")],
        )
        == []
    )
    other = BuildRow("x", "completed", 1, 2, 5)
    log = _log(*_UNENDED, _end(), _end(5, build_id="x"))
    twice = [BuildAcknowledgement(_ASK, "b"), BuildAcknowledgement(_ASK, "x")]
    assert _kinds(
        _QUIET,
        builds=[_DONE, other],
        log=log,
        acknowledgements=twice,
        guarantee=StatusGuarantee.NONE,
    ) == [Kind.ACK_TWICE]


@pytest.mark.parametrize("event_id", ["3-1", "4", "0"])
def test_a_status_with_an_id_of_its_own_is_found(event_id: str) -> None:
    """§6: such an id would move a browser's cursor; the checker of messages reports it."""
    client = _without(_COMPLETED)
    client.insert(client.index(_OPEN[-2]), msgspec.structs.replace(_COMPLETED, event_id=event_id))
    posts = [_ASK, *(Post("p", "w", f"c{seq}", f"text {seq}") for seq in (1, 3, 5))]

    def judge(events: Sequence[Event]) -> set[Kind]:
        history = ClientHistory("a", "p", (Connection("0", tuple(events)),))
        report = check(posts=posts, acknowledgements=[], clients=[history], log=_log())
        return {violation.kind for violation in report.violations}

    assert judge(client) == {Kind.MISANNOUNCED}
    assert judge(_OPEN) == set()
