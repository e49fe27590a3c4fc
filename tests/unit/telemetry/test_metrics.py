"""The closed sets of words that metrics have for labels."""

from __future__ import annotations

from typing import get_args

from service.http.api_errors import AuthenticationFailure
from service.streaming.stream_frames import CloseReason
from service.telemetry.metrics import AUTHENTICATION_FAILURES, CLOSE_REASONS


def test_each_authentication_failure_is_a_label() -> None:
    """A new reason without its series would be counted, but not from 0."""
    assert sorted(AUTHENTICATION_FAILURES) == sorted(get_args(AuthenticationFailure))


def test_each_end_of_a_stream_is_a_label() -> None:
    """The reasons of `stream.closing`, a client that leaves, and an error of the service."""
    assert sorted(CLOSE_REASONS) == sorted([*get_args(CloseReason), "client", "error"])
