"""The packed XREAD always names the present keys and ids, whatever changed since the last one."""

from __future__ import annotations

from hiredis import Reader
from hypothesis import given
from hypothesis import strategies as st

from streams.model.ids import EntryId
from streams.tail.packed_read import PackedRead
from streams.tail.tail import Tail


def _read() -> PackedRead:
    return PackedRead(count=200, block_ms=5000, further=("signals", "wake"))


def _command(packed: bytes) -> object:
    """Return the command as a RESP parser reads it."""
    reader = Reader()
    reader.feed(packed)
    return reader.gets()


def _tail(name: str, seq: int = 0, k: int = 0) -> Tail:
    return Tail(name, last_seq=seq, position=EntryId(seq, k))


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["add", "remove", "move"]),
            st.sampled_from("abc"),
            st.integers(0, 2**53),
            st.integers(0, 9),
        )
    )
)
def test_it_always_names_the_present_keys_and_ids(steps: list[tuple[str, str, int, int]]) -> None:
    """In one order, with nothing kept from an earlier state."""
    read = _read()
    model: dict[str, Tail] = {}
    for what, name, seq, k in steps:
        if what == "add":
            model.pop(name, None)
            read.remove(name.encode())
            model[name] = _tail(name, seq, k)
            read.add(name.encode(), model[name])
        elif what == "remove":
            model.pop(name, None)
            read.remove(name.encode())
        elif name in model:
            model[name].position = EntryId(seq, k)
        keys = [key.encode() for key in (*model, "signals", "wake")]
        ids = [str(tail.position).encode() for tail in model.values()]
        assert _command(read.pack(b"7-0", b"9-1")) == [
            *(b"XREAD", b"COUNT", b"200", b"BLOCK", b"5000", b"STREAMS"),
            *keys, *ids, b"7-0", b"9-1",
        ]  # fmt: skip
        assert len(read) == len(model)


def test_a_key_finds_its_tail() -> None:
    """A reply names keys; a key that was removed finds none."""
    read, tail = _read(), _tail("p")
    read.add(b"p", tail)
    followed = read.get(b"p")
    assert followed is not None
    assert followed.tail is tail
    read.remove(b"p")
    assert read.get(b"p") is None


def test_a_position_that_was_set_since_is_not_the_packed_one() -> None:
    """G6: a reply to a read from another position does not move the tail."""
    read, tail = _read(), _tail("p", 5, 2)
    read.add(b"p", tail)
    followed = read.get(b"p")
    assert followed is not None

    def is_as_packed() -> bool:
        return followed.is_as_packed

    assert not is_as_packed()
    read.pack(b"0-0", b"0-0")
    assert is_as_packed()
    # An equal position, but it was set: the stream is to be read again from there.
    tail.position = EntryId(5, 2)
    assert not is_as_packed()
