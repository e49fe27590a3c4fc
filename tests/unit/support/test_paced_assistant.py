"""The scripted assistant knows what it had sent at a moment: what a killed process lost."""

from __future__ import annotations

from tests.support.paced_assistant import Sending, spiced_script

# "ab" at 1 s, "abcd" at 2 s, "abcde" at 3 s.
_SENDING = Sending("why?", [1.0, 2.0, 3.0], [2, 4, 5])


def test_what_was_sent_until_a_moment_is_known() -> None:
    """Nothing before the first piece, everything after the last."""
    assert [_SENDING.sent_until(at_s) for at_s in (0.5, 1.0, 2.9, 9.0)] == [0, 2, 4, 5]


def test_when_a_text_had_been_sent_is_known() -> None:
    """A text is complete with the piece that its last character is in."""
    assert [_SENDING.sent_at_s(characters) for characters in (1, 2, 3, 4, 5)] == [1, 1, 2, 2, 3]


def test_a_script_follows_from_its_question_alone() -> None:
    """Otherwise nobody could say what a complete answer has to be."""
    assert spiced_script("why?") == spiced_script("why?")
    assert spiced_script("why?") != spiced_script("how?")
