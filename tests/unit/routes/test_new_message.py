"""docs/protocol.md §4: the operator's limit on a message's text, `SEQSTREAM_MAX_TEXT_BYTES`."""

from __future__ import annotations

import pytest

from service.routes.messages import PostedMessage, new_message
from streams.model.errors import PayloadTooLarge

_MOST = 300


@pytest.mark.parametrize("text", ["x" * _MOST, "é" * 150, "🧵" * 75])
def test_a_text_of_the_limit_is_taken(text: str) -> None:
    """The limit counts bytes of UTF-8."""
    assert new_message("u", PostedMessage(text), _MOST).text == text


@pytest.mark.parametrize("text", ["x" * (_MOST + 1), "é" * 151, "🧵" * 76])
def test_a_longer_text_is_refused_by_its_place(text: str) -> None:
    """413 names the field, in a batch the message too."""
    with pytest.raises(PayloadTooLarge) as refused:
        new_message("u", PostedMessage(text), _MOST, "messages[3].")
    assert (refused.value.field, refused.value.limit_bytes) == ("messages[3].message", _MOST)
