"""Import boundaries at run time and in the sources; import-linter checks the layers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

_FORBIDDEN = (
    "service",
    "litestar",
    "uvicorn",
    "click",
    "rich",
    "prometheus_client",
    "jwt",
    "httpx",
)


def _loaded_after(statement: str) -> set[str]:
    """Return the top-level modules that a fresh interpreter has loaded after a statement."""
    program = f"{statement}\nimport sys; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True, text=True, timeout=60, cwd=ROOT, check=True,
    )  # fmt: skip
    return set(done.stdout.split())


def test_the_library_loads_no_web_framework() -> None:
    """docs/design.md: `streams` imports no web framework and never `service`."""
    loaded = _loaded_after(
        "import importlib, pkgutil, streams\n"
        "for module in pkgutil.walk_packages(streams.__path__, 'streams.'):\n"
        "    importlib.import_module(module.name)"
    )
    assert loaded.isdisjoint(_FORBIDDEN)


def test_the_client_loads_no_server() -> None:
    """A program that only talks to a service loads no driver and no framework of a server."""
    loaded = _loaded_after("import service.client")
    assert "httpx" in loaded
    assert loaded.isdisjoint({"streams", "litestar", "asyncpg", "redis", "uvicorn", "jwt"})


@pytest.mark.parametrize(
    "module", ["model.ids", "window.keys", "model.events", "model.sse", "tail.tail"]
)
def test_the_pure_modules_load_no_driver(module: str) -> None:
    """The pure modules import neither asyncpg nor redis, also indirectly."""
    # Without the package's own __init__, which imports everything.
    loaded = _loaded_after(
        "import sys, types\n"
        "package = types.ModuleType('streams'); package.__path__ = ['streams']\n"
        "sys.modules['streams'] = package\n"
        f"import streams.{module}"
    )
    # The tail uses the type of an entry, which the window defines.
    allowed = {"redis"} if module == "tail.tail" else set()
    assert loaded & {"asyncpg", "redis"} <= allowed


_WINDOW_FILES = {
    "blocking_connection.py",
    "redis_client.py",
    "redis_errors.py",
    "redis_factory.py",
    "redis_internals.py",
    "redis_servers.py",
}


@pytest.mark.parametrize(
    ("driver", "room", "files"),
    [
        ("asyncpg", "streams/log", {"database.py", "asyncpg_internals.py"}),
        ("redis", "streams/window", _WINDOW_FILES),
        ("uvicorn", "service/http", {"uvicorn_internals.py", "server.py"}),
        ("httptools", "service/http", {"uvicorn_internals.py"}),
        ("uvloop", "service/http", {"uvicorn_internals.py"}),
    ],
)
def test_a_driver_is_imported_in_few_files_of_one_room(
    driver: str, room: str, files: set[str]
) -> None:
    """docs/design.md, layout: drivers' exceptions never leave the driver's room."""
    importing = {
        path.relative_to(ROOT)
        for folder in ("streams", "service")
        for path in (ROOT / folder).rglob("*.py")
        if any(
            line.strip().startswith((f"import {driver}", f"from {driver}"))
            for line in path.read_text().splitlines()
        )
    }
    assert importing == {Path(room) / file for file in files}


def test_the_library_reads_no_environment() -> None:
    """docs/design.md: the library reads no environment; the composition root passes settings."""
    for path in (ROOT / "streams").rglob("*.py"):
        text = path.read_text()
        assert "os.environ" not in text, path.name
        assert "getenv" not in text, path.name
