"""What all connections of a process receive: pending bytes and malformed requests."""

from __future__ import annotations

import logging

import pytest

from service.http.intake import Intake


def test_pending_bytes_have_a_bound() -> None:
    """More are refused until some are released."""
    intake = Intake(limit_bytes=100)
    assert intake.change(100)
    assert not intake.change(1)
    assert intake.change(-50)
    assert intake.change(49)
    assert intake.pending_bytes == 100


def test_a_bound_of_0_is_off() -> None:
    """Like every limit of the settings."""
    assert Intake(limit_bytes=0).change(10**12)


def test_malformed_requests_are_logged_at_most_once_in_ten_seconds(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One line with their number: clients that send them cannot fill the disk."""
    intake = Intake()
    with caplog.at_level(logging.WARNING):
        for now_s in range(20):
            for _ in range(1000):
                intake.count_malformed()
            intake.report(float(now_s))
    assert [record.__dict__["requests"] for record in caplog.records] == [1000, 10_000]
