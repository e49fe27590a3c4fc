"""What all connections of a process receive together, and how many reads a user has."""

from __future__ import annotations

import logging

import pytest

from service.access.read_slots import ReadSlots
from service.http.intake import Intake


def test_pending_bytes_have_a_bound() -> None:
    """More are refused, until some are let go of."""
    intake = Intake(limit_bytes=100)
    assert intake.change(100)
    assert not intake.change(1)
    assert intake.change(-50)
    assert intake.change(49)
    assert intake.pending_bytes == 100


def test_a_bound_of_0_is_off() -> None:
    """As every limit of the settings."""
    assert Intake(limit_bytes=0).change(10**12)


def test_malformed_requests_write_a_line_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    """Who sends them fills no disk: one line in ten seconds, with how many there were."""
    intake = Intake()
    with caplog.at_level(logging.WARNING):
        for now_s in range(20):
            for _ in range(1000):
                intake.count_malformed()
            intake.report(float(now_s))
    assert [record.__dict__["requests"] for record in caplog.records] == [1000, 10_000]


def test_reads_of_a_user_have_a_bound() -> None:
    """Others' reads are not counted among them, and nothing is kept of who has none."""
    slots = ReadSlots(2)
    assert [slots.acquire("a") for _ in range(3)] == [True, True, False]
    assert slots.acquire("b")
    slots.release("a")
    assert slots.acquire("a")
    for user_id in "aab":
        slots.release(user_id)
    assert slots.tracked == 0


def test_a_bound_of_0_reads_is_off() -> None:
    """As every limit of the settings."""
    slots = ReadSlots(0)
    assert all(slots.acquire("a") for _ in range(1000))
