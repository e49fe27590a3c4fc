"""Builds' states as they are read back from a stream, where other programs can put anything."""

from __future__ import annotations

import pytest

from streams.model.build_states import read_build_status


@pytest.mark.parametrize("data", [b"", b"{}", b"[1]", b'{"metadata":%b}' % (b"[" * 5000)])
def test_data_that_is_no_status_is_none(data: bytes) -> None:
    """It must not end the lane that follows the stream."""
    assert read_build_status(data) is None
