"""How long a connection waits for its client."""

from __future__ import annotations

import pytest

from service.http.deadlines import LIMITS_S, STALL_S, Deadline, Phase, sweep


class _Clock:
    """Monotonic seconds that a test sets; a machine may have booted just now."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class _Watched:
    def __init__(self, clock: _Clock) -> None:
        self.deadline = Deadline(clock)
        self.looked = 0

    def look(self, now_s: float) -> None:
        self.looked += 1


@pytest.mark.parametrize("phase", ["head", "body", "idle", "linger"])
def test_a_wait_that_goes_on_keeps_its_deadline(phase: Phase) -> None:
    """Bytes that complete nothing prolong nothing."""
    clock = _Clock()
    deadline = Deadline(clock)
    deadline.wait("answer")
    deadline.wait(phase)
    due_s = deadline.due_s
    clock.now_s += 5
    deadline.wait(phase)
    assert deadline.due_s == due_s == LIMITS_S[phase]


def test_the_next_wait_has_its_own_deadline() -> None:
    """A kept connection serves for ever, request by request."""
    clock = _Clock()
    deadline = Deadline(clock)
    deadline.wait("answer")
    assert deadline.due_s == float("inf")
    clock.now_s = 100
    deadline.wait("idle")
    assert deadline.due_s == 100 + LIMITS_S["idle"]


def test_a_client_that_takes_bytes_has_not_stalled() -> None:
    """However slowly: progress is what counts."""
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


def test_who_has_taken_all_is_looked_at_no_longer() -> None:
    """The sweep costs nothing for connections that owe nothing."""
    clock = _Clock()
    watched = _Watched(clock)
    watched.deadline.written()
    sweep([watched], 1.0)
    assert watched.looked == 1
    assert not watched.deadline.has_stalled(0, 1.0)
    sweep([watched], 2.0)
    assert watched.looked == 1
    sweep([watched], LIMITS_S["head"])
    assert watched.looked == 2
