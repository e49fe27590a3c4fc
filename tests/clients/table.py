"""The table of clients and scenarios: in the terminal, and in `docs/clients.md` between markers.

Formatting only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.table import Table

from tests.clients.catalogue import NO_RECONNECTS, Client
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
_NOTED = (State.RECIPE, State.CLIENT)


def terminal_table(
    clients: Sequence[Client], scenarios: Sequence[Scenario], cells: Iterable[Cell]
) -> Table:
    """Return the table for a terminal."""
    found = _by_place(cells)
    table = Table("client", *(scenario.name for scenario in scenarios))
    for client in clients:
        row = [found.get((client.title, scenario.name)) for scenario in scenarios]
        shown = [
            "" if cell is None else f"[{_STYLE[cell.state]}]{cell.state.value}[/]" for cell in row
        ]
        table.add_row(client.title, *shown)
    return table


def written_table(
    clients: Sequence[Client], scenarios: Sequence[Scenario], cells: Iterable[Cell]
) -> str:
    """Return the table in Markdown; clients are rows. A client that needs one has a note below."""
    found = _by_place(cells)
    lines = [
        "| client | " + " | ".join(scenario.summary for scenario in scenarios) + " |",
        "| --- |" + " --- |" * len(scenarios),
    ]
    notes: list[str] = []
    for client in clients:
        row = [(scenario, found.get((client.title, scenario.name))) for scenario in scenarios]
        note = _note(client, row)
        if note is not None:
            notes.append(note)
        shown = " | ".join(_shown(cell, len(notes)) for _, cell in row)
        lines.append(f"| {_name(client)} | {shown} |")
    lines += ["", *(f"{number}. {note}" for number, note in enumerate(notes, start=1))]
    return "\n".join(lines).rstrip() + "\n"


def replace_table(document: str, table: str) -> str:
    """Return the document with another table between its markers."""
    before, _, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    assert end, "the document has no place for the table"
    return f"{before}{BEGIN}\n\n{table}\n{END}{after}"


def _name(client: Client) -> str:
    package = f"`{client.package}` {client.version}".strip()
    named = package if client.package == client.name else f"{client.name} ({package})"
    return f"{named}, {client.language}"


def _shown(cell: Cell | None, note: int) -> str:
    state = State.NOT_RUN if cell is None else cell.state
    return f"{state.value} ({note})" if state in _NOTED else state.value


def _note(client: Client, row: Sequence[tuple[Scenario, Cell | None]]) -> str | None:
    """Say what the client cannot, where that differs from cell to cell, and what helps."""
    limits: dict[str, list[str]] = {}
    for scenario, cell in row:
        if cell is not None and cell.state in _NOTED and cell.limit is not None:
            limits.setdefault(cell.limit, []).append(scenario.summary)
    if not limits:
        return None
    reasons = [
        limit if len(limits) == 1 or limit == NO_RECONNECTS else f"{limit} ({', '.join(summaries)})"
        for limit, summaries in limits.items()
    ]
    recipe = f" {client.recipe.rstrip('.')}." if client.recipe else ""
    return f"{client.title}: {'; '.join(reasons)}.{recipe}"


def _by_place(cells: Iterable[Cell]) -> dict[tuple[str, str], Cell]:
    return {(cell.client, cell.scenario): cell for cell in cells}
