"""SQL files: `statement("name")` reads `name.sql`, `migrations()` lists `migrations/*.sql`."""

from __future__ import annotations

from functools import cache
from importlib.resources import files


@cache
def statement(name: str) -> str:
    """Return the text of `<name>.sql`."""
    return files(__name__).joinpath(f"{name}.sql").read_text(encoding="utf-8")


def migrations() -> list[tuple[int, str, str]]:
    """Return (number, name, text) of every migration, in order."""
    found = []
    for item in files(__name__).joinpath("migrations").iterdir():
        if item.name.endswith(".sql"):
            number, _, _ = item.name.partition("_")
            found.append((int(number), item.name, item.read_text(encoding="utf-8")))
    return sorted(found)


def is_breaking(text: str) -> bool:
    """Tell whether code that does not know this migration must not run once it is applied.

    Such a migration begins with `-- breaking`.
    """
    return text.startswith("-- breaking")
