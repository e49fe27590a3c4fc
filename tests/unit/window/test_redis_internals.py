"""The driver's internals that are used: a redis-py that lacks one is refused at import."""

from __future__ import annotations

import pytest

from streams.window.redis_internals import require


class _Connection:
    async def send(self, command: bytes) -> None:
        """Stand for a driver's class."""


def test_a_missing_attribute_is_named_with_the_version() -> None:
    """Whoever upgrades redis-py reads at start what is missing, not at the first read."""
    with pytest.raises(ImportError) as caught:
        require("9.9.9", [(_Connection, "send", ("command",)), (_Connection, "receive", ())])
    assert str(caught.value) == "redis 9.9.9 lacks _Connection.receive, which seqstream needs"


def test_a_missing_parameter_is_named_with_the_version() -> None:
    """An internal that takes other arguments is missing too."""
    with pytest.raises(ImportError) as caught:
        require("9.9.9", [(_Connection, "send", ("command", "check_health"))])
    assert (
        str(caught.value)
        == "redis 9.9.9 lacks _Connection.send(check_health=), which seqstream needs"
    )


def test_a_driver_with_all_of_them_is_accepted() -> None:
    """Nothing is raised."""
    require("8.1.0", [(_Connection, "send", ("command",))])
