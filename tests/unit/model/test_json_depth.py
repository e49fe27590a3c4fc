"""`streams/model/json_depth.py`: what is kept can be decoded wherever it is read."""

from __future__ import annotations

import msgspec
import pytest

from streams.model.errors import InvalidInput
from streams.model.json_depth import MAX_DEPTH, check_depth


def _nested(levels: int, *, as_object: bool) -> bytes:
    value: object = "[{" * 100
    for _ in range(levels):
        value = {"a": value, "b": 1} if as_object else [1, value]
    return msgspec.json.encode(value)


@pytest.mark.parametrize("as_object", [False, True])
def test_the_deepest_that_is_taken(as_object: bool) -> None:
    """Brackets within texts do not count, nor how many values a level has."""
    check_depth(_nested(MAX_DEPTH, as_object=as_object), "data")
    check_depth(msgspec.json.encode([[]] * 1000), "data")
    with pytest.raises(InvalidInput) as refused:
        check_depth(_nested(MAX_DEPTH + 1, as_object=as_object), "data")
    assert refused.value.field == "data"
