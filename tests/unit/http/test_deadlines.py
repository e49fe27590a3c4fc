"""Deadlines of a connection: `service/http/deadlines.py`."""

from __future__ import annotations

import pytest

from service.http.deadlines import LIMITS_S, STALL_S, Deadline, Phase, sweep


class _Clock:
    """Monotonic seconds that a test sets, from 0 as on a machine that has just booted."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class _Connection:
    def __init__(self, clock: _Clock) -> None:
        self.deadline = Deadline(clock)
        self.checks = 0

    def check_deadline(self, now_s: float) -> None:
        self.checks += 1


@pytest.mark.parametrize("phase", ["head", "body", "idle", "linger"])
def test_a_wait_that_goes_on_keeps_its_deadline(phase: Phase) -> None:
    """Bytes that complete nothing do not extend the deadline."""
    clock = _Clock()
    deadline = Deadline(clock)
    deadline.wait("answer")
    deadline.wait(phase)
    due_s = deadline.due_s
    clock.now_s += 5
    deadline.wait(phase)
    assert deadline.due_s == due_s == LIMITS_S[phase]


def test_the_next_wait_has_its_own_deadline() -> None:
    """A kept connection can serve without end, request by request."""
    clock = _Clock()
    deadline = Deadline(clock)
    deadline.wait("answer")
    assert deadline.due_s == float("inf")
    clock.now_s = 100
    deadline.wait("idle")
    assert deadline.due_s == 100 + LIMITS_S["idle"]


def test_a_client_that_takes_bytes_has_not_stalled() -> None:
    """However slow it is: any progress counts."""
    deadline = Deadline(_Clock())
    deadline.written()
    assert not any(
        deadline.has_stalled(10_000 - second, second) for second in range(0, 1000, int(STALL_S) - 1)
    )


def test_a_client_that_takes_no_byte_has_stalled() -> None:
    """Also while more is written for it."""
    deadline = Deadline(_Clock())
    deadline.written()
    assert not deadline.has_stalled(10, STALL_S - 1)
    assert deadline.has_stalled(20, STALL_S)


def test_a_client_that_has_taken_everything_is_not_checked_again() -> None:
    """The sweep skips connections without unread bytes until their deadline."""
    clock = _Clock()
    connection = _Connection(clock)
    connection.deadline.written()
    sweep([connection], 1.0)
    assert connection.checks == 1
    assert not connection.deadline.has_stalled(0, 1.0)
    sweep([connection], 2.0)
    assert connection.checks == 1
    sweep([connection], LIMITS_S["head"])
    assert connection.checks == 2
