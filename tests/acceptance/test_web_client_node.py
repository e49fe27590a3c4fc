"""The browser and Node client without a service: its own tests in Node, its types, its package.

The tests are in tests/web_client/, one file for each part; with a real service the client is
followed in test_web_client_service.py.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.node_modules import FOLDER as _TESTS
from tests.support.node_modules import node_modules

_ROOT = Path(__file__).resolve().parents[2]
_CLIENT = _ROOT / "service" / "web" / "client"
_TIMEOUT_S = 100


@pytest.fixture(scope="module")
def node() -> str:
    """The program `node`."""
    found = shutil.which("node")
    if found is None:
        pytest.skip("needs node")
    return found


def _run(command: Sequence[str], folder: Path) -> None:
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"


@pytest.fixture(scope="module")
def modules(node: str) -> Path:
    """The packages that the tests need."""
    return node_modules()


@pytest.mark.parametrize("path", sorted(_TESTS.glob("*.test.mjs")), ids=lambda path: path.stem)
def test_client_in_node(node: str, modules: Path, path: Path) -> None:
    """The file's tests pass."""
    _run([node, "--test", path.name], _TESTS)


@pytest.fixture(scope="module")
def user_folder(modules: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose node_modules has the client, as it lies there, and TypeScript."""
    folder = tmp_path_factory.mktemp("client_user")
    own = folder / "node_modules"
    own.mkdir()
    (own / "typescript").symlink_to(modules / "typescript")
    (own / "seqstream-client").symlink_to(_CLIENT)
    (folder / "package.json").write_text('{"type": "module"}')
    shutil.copy(_TESTS / "usage.ts", folder)
    return folder


def test_types_are_strict(node: str, user_folder: Path) -> None:
    """The types hold by themselves, allow what is meant to be done, and refuse the rest."""
    options = ["--strict", "--noEmit", "--target", "es2022", "--module", "nodenext"]
    libraries = ["--lib", "es2022,dom", "--skipDefaultLibCheck"]
    tsc = "node_modules/typescript/bin/tsc"
    _run([node, tsc, *options, *libraries, "--preserveSymlinks", "usage.ts"], user_folder)


def test_transport_is_one_of_the_ai_sdk(
    node: str, modules: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """By the types of the real package: its chat takes the transport, and messages of a project."""
    folder = tmp_path_factory.mktemp("ai_sdk_user")
    own = folder / "node_modules"
    own.mkdir()
    for package in modules.iterdir():
        # Without Node's types, which take long to read.
        if package.name not in ("@types", "seqstream-client"):
            (own / package.name).symlink_to(package)
    (own / "seqstream-client").symlink_to(_CLIENT)
    (folder / "package.json").write_text('{"type": "module"}')
    shutil.copy(_TESTS / "usage_ai_sdk.ts", folder)
    options = ["--strict", "--noEmit", "--target", "es2022", "--module", "nodenext"]
    # The packages' own types are not ours to check.
    more = ["--lib", "es2023,dom,dom.asynciterable", "--skipLibCheck", "--preserveSymlinks"]
    tsc = "node_modules/typescript/bin/tsc"
    _run([node, tsc, *options, *more, "usage_ai_sdk.ts"], folder)


def test_folder_is_an_npm_package(node: str, user_folder: Path) -> None:
    """It is imported by its name, has everything that it names, and needs no other package."""
    script = 'import { open } from "seqstream-client"; if (typeof open !== "function") throw open;'
    _run([node, "--input-type=module", "-e", script], user_folder)
    package = json.loads((_CLIENT / "package.json").read_text())
    assert "dependencies" not in package
    for export in package["exports"].values():
        for path in export.values() if isinstance(export, dict) else [export]:
            assert (_CLIENT / path).is_file(), path


def test_every_import_is_a_sibling() -> None:
    """Browsers load the modules from one folder, without an import map; React is the user's own."""
    for path in _CLIENT.glob("*.js"):
        for line in path.read_text().splitlines():
            if line.startswith(("import ", "export ")) and " from " in line:
                target = line.rpartition(" from ")[2].strip('";')
                if (path.name, target) == ("react.js", "react"):
                    continue
                assert target.startswith("./"), f"{path}: {line}"
                assert (_CLIENT / target).is_file(), f"{path}: {line}"
