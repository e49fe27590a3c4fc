"""Which exception becomes which error: `service/http/error_mapping.py`, without an application."""

from __future__ import annotations

import json
from typing import Annotated

import msgspec
import pytest

from service.http import api_errors, error_mapping
from service.http.api_errors import ApiError
from service.http.error_mapping import to_api_error


class Inner(msgspec.Struct, forbid_unknown_fields=True):
    """A part of a body."""

    n: Annotated[int, msgspec.Meta(ge=1)]


class Body(msgspec.Struct, forbid_unknown_fields=True):
    """A body with fields of some kinds."""

    message: Annotated[str, msgspec.Meta(min_length=1)]
    many: list[Inner] = []
    metadata: object = None


@pytest.mark.parametrize(
    "content, field, message",
    [
        (b"{", "body", "is not valid JSON"),
        (b'{"message":"\xff"}', "body", "is not valid JSON"),
        (b'{"message":"a","metadata":' + b"[" * 5000, "body", "is nested too deep"),
        (b"[1]", "body", "Expected `object`, got `array`"),
        (b"{}", "message", "is required"),
        (b'{"message":5}', "message", "Expected `str`, got `int`"),
        (b'{"message":"a","many":[{"n":1},{"n":0}]}', "many[1].n", "Expected `int` >= 1"),
        (b'{"message":"a","many":[{}]}', "many[0].n", "is required"),
    ],
    ids=lambda value: value[:40].decode("latin-1") if isinstance(value, bytes) else None,
)
def test_bad_body_that_a_route_decodes(content: bytes, field: str, message: str) -> None:
    """§4: as above, for a route that decodes its body itself."""
    try:
        msgspec.json.decode(content, type=Body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as caught:
        error = error_mapping.invalid_body(caught)
    assert json.loads(error.body("r"))["details"] == [{"field": field, "message": message}]


@pytest.fixture
def mapped(monkeypatch: pytest.MonkeyPatch) -> type[Exception]:
    class LibraryError(Exception):
        pass

    monkeypatch.setitem(
        error_mapping._STREAMS_ERRORS, LibraryError, lambda exc: api_errors.not_found(str(exc))
    )
    return LibraryError


def test_library_error_is_mapped_by_its_nearest_class(mapped: type[Exception]) -> None:
    """A subclass becomes the error of its nearest class in the table."""

    class Narrower(mapped):  # type: ignore[misc, valid-type]
        pass

    error = to_api_error(Narrower("no such build"))
    assert isinstance(error, ApiError)
    assert (error.status, error.message) == (404, "no such build")
