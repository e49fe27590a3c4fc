"""The closed sets of words that metrics have for labels, and who shares the metrics."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

from prometheus_client import CollectorRegistry

from service.http.api_errors import AuthenticationFailure
from service.streaming.stream_frames import CloseReason
from service.telemetry.metrics import AUTHENTICATION_FAILURES, CLOSE_REASONS, Metrics


def test_each_authentication_failure_is_a_label() -> None:
    """A new reason without its series would be counted, but not from 0."""
    assert sorted(AUTHENTICATION_FAILURES) == sorted(get_args(AuthenticationFailure))


def test_each_end_of_a_stream_is_a_label() -> None:
    """The reasons of `stream.closing`, a client that leaves, and an error of the service."""
    assert sorted(CLOSE_REASONS) == sorted([*get_args(CloseReason), "client", "error"])


def test_the_processes_behind_one_port_are_counted_by_their_gauges(tmp_path: Path) -> None:
    """The supervisor removes those of a process that ended; a process alone has no folder."""
    assert Metrics(CollectorRegistry()).processes() == 1
    shared = Metrics(CollectorRegistry(), multiprocess_dir=str(tmp_path))
    for name in ("gauge_livesum_7.db", "gauge_livesum_8.db", "counter_7.db", "counter_6.db"):
        (tmp_path / name).touch()
    assert shared.processes() == 2
