"""The reaper finds every descendant, whatever ends while the processes are read."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from service.worker import build_keeper
from service.worker.build_keeper import Reaper

_INIT, _KEEPER, _BUILD, _STRANGER = 1, 100, 200, 300


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The processes that were sent SIGKILL; none really is."""
    sent: list[int] = []

    def kill(process: int, number: int) -> None:
        assert number == signal.SIGKILL
        sent.append(process)

    monkeypatch.setattr(os, "kill", kill)
    monkeypatch.setattr(os, "killpg", lambda *_: None)
    return sent


def _show(
    monkeypatch: pytest.MonkeyPatch, parent_of: Callable[[int, int], int | None]
) -> list[int]:
    """Let `/proc` show the parent that `parent_of(process, time of reading)` returns."""
    reads: list[int] = []

    def read(process: int) -> tuple[int, int] | None:
        reads.append(process)
        parent = parent_of(process, reads.count(process))
        return None if parent is None else (parent, process)

    monkeypatch.setattr(build_keeper, "_processes", lambda: [_INIT, _KEEPER, _BUILD, _STRANGER])
    monkeypatch.setattr(build_keeper, "_parent_and_group", read)
    return reads


def test_a_build_is_killed_though_its_keeper_ends_while_they_are_read(
    monkeypatch: pytest.MonkeyPatch, killed: list[int]
) -> None:
    """The build still named its keeper as parent; the keeper was gone when it was read itself."""

    def parent_of(process: int, time: int) -> int | None:
        if process == _BUILD:
            return _KEEPER if time == 1 else os.getpid()
        return {_INIT: 0, _STRANGER: _INIT}.get(process)

    _show(monkeypatch, parent_of)
    assert Reaper().kill() == [_BUILD]
    assert killed == [_BUILD]


def test_processes_of_others_are_read_once_and_spared(
    monkeypatch: pytest.MonkeyPatch, killed: list[int]
) -> None:
    """A busy machine has many processes: those found elsewhere in the tree are not read again."""
    parents = {_INIT: 0, _KEEPER: os.getpid(), _BUILD: _KEEPER, _STRANGER: _INIT}
    reads = _show(monkeypatch, lambda process, _: parents[process])
    reaper = Reaper()
    assert [reaper.kill(), reaper.kill()] == [[_KEEPER], [_KEEPER]]
    assert sorted(killed) == [_KEEPER, _KEEPER, _BUILD, _BUILD]
    assert (reads.count(_STRANGER), reads.count(_INIT)) == (1, 1)


def test_a_parent_that_never_appears_ends_the_reading(
    monkeypatch: pytest.MonkeyPatch, killed: list[int]
) -> None:
    """Of a process in another namespace the parent may not be visible here."""
    reads = _show(monkeypatch, lambda process, _: {_INIT: 0, _STRANGER: 999}.get(process))
    assert Reaper().kill() == []
    assert killed == []
    assert reads.count(_STRANGER) <= 11
