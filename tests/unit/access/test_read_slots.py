"""How many reads a user has at once."""

from __future__ import annotations

from service.access.read_slots import ReadSlots


def test_reads_of_a_user_have_a_bound() -> None:
    """Each user has a count of their own; a user without reads is not tracked."""
    slots = ReadSlots(2)
    assert [slots.acquire("a") for _ in range(3)] == [True, True, False]
    assert slots.acquire("b")
    slots.release("a")
    assert slots.acquire("a")
    for user_id in "aab":
        slots.release(user_id)
    assert slots.tracked == 0


def test_a_bound_of_0_reads_is_off() -> None:
    """Like every limit of the settings."""
    slots = ReadSlots(0)
    assert all(slots.acquire("a") for _ in range(1000))
