"""The catalogue as it is, and what a cell and the table say for each outcome."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.clients import catalogue, scenarios, table
from tests.clients.catalogue import Client
from tests.clients.cells import Cell, Outcome, State, state_of
from tests.clients.hostile_texts import hostile_texts
from tests.clients.nginx_front import DOCUMENT
from tests.clients.program import SUITE

CLIENT = Client("one", "one", "1.0", "Python", ["one"], reconnects=False, recipe="Loop.")
PASSES, FAILS = Outcome(True, 1.0), Outcome(False, 1.0, ("lost",))
SCENARIOS = {scenario.name: scenario for scenario in scenarios.ALL}


def test_programs_that_the_catalogue_names_are_there() -> None:
    """Each client's program, and its recipe's, stands in `programs/`."""
    whole = catalogue.load()
    assert len(whole.client) >= 8
    for client in whole.client:
        for command in (client.command, client.recipe_command or []):
            for word in command:
                if word.startswith("programs/"):
                    assert (SUITE / word).is_file(), word


def test_versions_of_python_clients_are_those_of_the_locks() -> None:
    """What the table says is what is installed."""
    locks = "".join(
        path.read_text() for path in (SUITE / "programs").glob("python*/requirements.lock")
    )
    for client in catalogue.load().client:
        if (client.build or "").startswith("python"):
            assert re.search(rf"^{client.package}=={re.escape(client.version)} ", locks, re.M)


@pytest.mark.parametrize(
    "text",
    [
        '[[client]]\nname = "a"\npackage = "a"\nversion = ""\nlanguage = ""\ncommand = []\n',
        '[[client]]\nname = "a"\npackage = "a"\nversion = ""\nlanguage = ""\ncommand = []\n'
        'reconnects = true\nlimit = "x"\n',
    ],
    ids=["a field is missing", "an unknown field"],
)
def test_a_wrong_entry_is_refused(text: str) -> None:
    """A misspelt limit must not make a cell pass."""
    with pytest.raises(ValueError, match="client"):
        catalogue.read(text)


@pytest.mark.parametrize("field", ["limits", "recipe_limits"])
def test_a_limit_of_an_unknown_scenario_is_refused(field: str, tmp_path: Path) -> None:
    """A scenario that was renamed would hide a failure."""
    text = (
        '[[client]]\nname = "a"\npackage = "a"\nversion = ""\nlanguage = ""\ncommand = []\n'
        f'reconnects = true\n[client.{field}]\nnonsense = "x"\n'
    )
    (tmp_path / "a.toml").write_text(text)
    with pytest.raises(ValueError, match="nonsense"):
        catalogue.load(tmp_path)


def test_a_client_that_does_not_reconnect_is_limited_where_it_has_to() -> None:
    """And nowhere else."""
    assert CLIENT.limit(SCENARIOS["cut-middle"]) == "does not reconnect"
    assert CLIENT.limit(SCENARIOS["live"]) is None


@pytest.mark.parametrize(
    ("limit", "bare", "recipe", "known", "state"),
    [
        (None, PASSES, None, False, State.OK),
        (None, FAILS, None, False, State.FAILED),
        # Nothing said that it cannot, so a recipe does not excuse it.
        (None, FAILS, PASSES, False, State.FAILED),
        ("x", PASSES, None, False, State.STALE),
        ("x", FAILS, None, False, State.CLIENT),
        ("x", FAILS, PASSES, False, State.RECIPE),
        ("x", FAILS, FAILS, False, State.FAILED),
        ("x", FAILS, FAILS, True, State.CLIENT),
        ("x", FAILS, PASSES, True, State.STALE),
    ],
)
def test_a_cell_from_what_was_declared_and_what_happened(
    limit: str | None, bare: Outcome, recipe: Outcome | None, known: bool, state: State
) -> None:
    """Only FAILED and STALE fail the run."""
    assert state_of(limit, bare, recipe, known) is state
    cell = Cell("one", "live", state)
    assert cell.fails_the_run == (state in (State.FAILED, State.STALE))


def test_the_table_has_a_note_for_what_a_client_cannot() -> None:
    """One note a client; a cell that was not run is never ok."""
    shown = [SCENARIOS[name] for name in ("live", "cut-early", "cut-middle", "restart")]
    cells = [
        Cell("one, Python", "live", State.OK),
        Cell("one, Python", "cut-early", State.RECIPE, limit="does not reconnect"),
        Cell("one, Python", "cut-middle", State.RECIPE, limit="does not reconnect"),
    ]
    written = table.written_table([CLIENT], shown, cells)
    assert "| `one` 1.0, Python | ok | recipe (1) | recipe (1) | not run |" in written
    assert written.endswith("\n\n1. one, Python: does not reconnect. Loop.\n")


def test_a_note_says_which_limit_belongs_to_which_cell() -> None:
    """Where a client has several."""
    shown = [SCENARIOS[name] for name in ("cut-early", "silence")]
    cells = [
        Cell("one, Python", "cut-early", State.RECIPE, limit="does not reconnect"),
        Cell("one, Python", "silence", State.CLIENT, limit="gives up"),
    ]
    written = table.written_table([CLIENT], shown, cells)
    assert "recipe (1) | client (1) |" in written
    assert f"does not reconnect; gives up ({shown[1].summary}). Loop." in written


def test_the_document_has_a_place_for_the_table() -> None:
    """Writing it twice gives the same."""
    document = DOCUMENT.read_text(encoding="utf-8")
    once = table.replace_table(document, "| table |\n")
    assert "| table |" in once
    assert table.replace_table(once, "| table |\n") == once


def test_hostile_texts_reach_the_maximum_and_differ() -> None:
    """The largest is exactly as long as a text may be; none is longer, none is empty."""
    texts = hostile_texts(65_536)
    sizes = [len(text.encode()) for text in texts]
    assert max(sizes) == 65_536
    assert min(sizes) == 1
    assert {"\x01" * 65_536, '"' * 65_536} <= set(texts)
    assert not any("\n" in text or "\r" in text for text in hostile_texts(65_536, bare=True))
