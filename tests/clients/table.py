"""The table of clients and scenarios: in the terminal, and in `docs/clients.md` between markers.

Formatting only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.table import Table

from tests.clients.catalogue import Client
from tests.clients.cells import Cell, State
from tests.clients.scenarios import Scenario

BEGIN = "<!-- begin: written by `make clients ARGS=--write-docs` -->"
END = "<!-- end -->"
_STYLE = {
    State.OK: "green",
    State.RECIPE: "cyan",
    State.CLIENT: "yellow",
    State.FAILED: "bold red",
    State.STALE: "bold red",
    State.NOT_RUN: "dim",
}


def terminal_table(
    clients: Sequence[Client], scenarios: Sequence[Scenario], cells: Iterable[Cell]
) -> Table:
    """Return the table for a terminal."""
    found = _by_place(cells)
    table = Table("client", *(scenario.name for scenario in scenarios))
    for client in clients:
        row = [found.get((client.name, scenario.name)) for scenario in scenarios]
        shown = [
            "" if cell is None else f"[{_STYLE[cell.state]}]{cell.state.value}[/]" for cell in row
        ]
        table.add_row(client.name, *shown)
    return table


def written_table(
    clients: Sequence[Client], scenarios: Sequence[Scenario], cells: Iterable[Cell]
) -> str:
    """Return the table in Markdown with its notes: clients are rows, scenarios columns."""
    found = _by_place(cells)
    notes: dict[str, int] = {}
    lines = [
        "| client | " + " | ".join(scenario.summary for scenario in scenarios) + " |",
        "| --- |" + " --- |" * len(scenarios),
    ]
    for client in clients:
        shown = [
            _shown(found.get((client.name, scenario.name)), client, notes) for scenario in scenarios
        ]
        lines.append(f"| {_title(client)} | " + " | ".join(shown) + " |")
    lines += ["", *(f"{number}. {note}" for note, number in notes.items())]
    return "\n".join(lines).rstrip() + "\n"


def replace_table(document: str, table: str) -> str:
    """Return the document with another table between its markers."""
    before, _, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    assert end, "the document has no place for the table"
    return f"{before}{BEGIN}\n\n{table}\n{END}{after}"


def _title(client: Client) -> str:
    name = f"`{client.package}` {client.version}".strip()
    named = name if client.package in client.name else f"{client.name}: {name}"
    return f"{named} ({client.language})"


def _shown(cell: Cell | None, client: Client, notes: dict[str, int]) -> str:
    if cell is None:
        return "not run"
    if cell.state not in (State.RECIPE, State.CLIENT):
        return cell.state.value
    note = f"{client.name}: {cell.limit}."
    if client.recipe and (cell.state is State.RECIPE or client.recipe_command is None):
        note += f" {client.recipe}"
    number = notes.setdefault(note, len(notes) + 1)
    return f"{cell.state.value} ({number})"


def _by_place(cells: Iterable[Cell]) -> dict[tuple[str, str], Cell]:
    return {(cell.client, cell.scenario): cell for cell in cells}
