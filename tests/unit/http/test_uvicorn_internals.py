"""The check of uvicorn, httptools and uvloop that runs when the protocol is imported."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from importlib.metadata import version
from typing import Any

import httptools
import pytest
import uvicorn
import uvloop.loop
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from service.http import uvicorn_internals
from service.http.uvicorn_internals import Expected, IncompatibleDriver, missing_from
from tests.support.protocol_server import protocol_server
from tests.support.raw_stream import raw_connection
from tests.support.waiting import wait_until

# What an instance's dictionary holds before CPython gives it keys of its own.
_SHARED_KEYS = 30


class _Driver:
    """A class of a driver, as the check sees one."""

    def __init__(self) -> None:
        self.kept = 1

    def start(self, cycle: object, app: object) -> None:
        """Do nothing."""


class _Slotted:
    __slots__ = ()


@pytest.mark.parametrize(
    ("expected", "missing"),
    [
        (Expected(_Driver, methods={"start": ("cycle", "app")}, attributes=("kept",)), []),
        (Expected(_Driver, methods={"stop": ()}), ["_Driver.stop"]),
        (Expected(_Driver, methods={"stop": None}), ["_Driver.stop"]),
        (Expected(_Driver, methods={"start": ("cycle",)}), ["_Driver.start(cycle)"]),
        (Expected(_Driver, attributes=("kept", "gone")), ["_Driver.gone"]),
        (Expected(_Driver, attributes=("kept",), assigned_in=("start",)), ["_Driver.kept"]),
        (Expected(_Driver, has_dict=True), []),
        (Expected(_Slotted, has_dict=True), ["_Slotted.__dict__"]),
    ],
)
def test_each_missing_part_is_named(expected: Expected, missing: list[str]) -> None:
    """A method, its parameters, an attribute that its methods assign, a dictionary."""
    assert list(missing_from(expected)) == missing


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (HttpToolsProtocol, "_start_asgi_task"),
        (HttpToolsProtocol, "on_response_complete"),
        (RequestResponseCycle, "run_asgi"),
        (uvicorn.Server, "capture_signals"),
    ],
)
def test_a_missing_method_is_an_error_that_names_it_and_the_versions(
    monkeypatch: pytest.MonkeyPatch, owner: type, name: str
) -> None:
    """Whoever upgraded a driver reads what changed, and which version was found."""
    monkeypatch.delattr(owner, name)
    with pytest.raises(IncompatibleDriver) as caught:
        uvicorn_internals.check()
    assert caught.value.missing == (f"{owner.__name__}.{name}",)
    for driver in ("uvicorn", "httptools", "uvloop"):
        assert f"{driver} {version(driver)}" in str(caught.value)


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (HttpToolsProtocol, "pipeline"),
        (RequestResponseCycle, "more_body"),
        (uvicorn.Server, "servers"),
    ],
)
def test_a_missing_attribute_is_an_error_that_names_it(
    monkeypatch: pytest.MonkeyPatch, owner: type, name: str
) -> None:
    """A release that no longer assigns an attribute is noticed without an instance of the class."""

    def init(self: object) -> None:
        pass

    for expected in uvicorn_internals.EXPECTED:
        if expected.owner is owner:
            for method in expected.assigned_in:
                monkeypatch.setattr(owner, method, init)
    with pytest.raises(IncompatibleDriver) as caught:
        uvicorn_internals.check()
    assert f"{owner.__name__}.{name}" in caught.value.missing


def test_parser_status_lines_and_sockets_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """httptools' and uvloop's classes are compiled: only the presence of names can be checked."""
    assert httptools.HttpRequestParser in [each.owner for each in uvicorn_internals.EXPECTED]
    monkeypatch.setattr(uvicorn_internals, "STATUS_LINE", {})
    monkeypatch.delattr(uvloop.loop, "PseudoSocket")
    with pytest.raises(IncompatibleDriver) as caught:
        uvicorn_internals.check()
    assert caught.value.missing == (
        "STATUS_LINE", "PseudoSocket.family", "PseudoSocket.fileno",
    )  # fmt: skip


def test_the_process_does_not_start_with_an_incompatible_driver() -> None:
    """The check runs at import, before a request can meet the missing part."""
    program = (
        "from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol\n"
        "del HttpToolsProtocol.pause_writing\n"
        "import service.http.protocol"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    last_line = done.stderr.splitlines()[-1]
    assert "missing or changed: HttpToolsProtocol.pause_writing" in last_line
    assert f"uvicorn {version('uvicorn')}" in last_line


async def test_a_connection_adds_nothing_to_the_dictionary_that_uvicorn_fills() -> None:
    """Beyond the keys that instances share, an idle stream would cost a kilobyte more."""
    served = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        served.set()
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async with protocol_server(app) as server, raw_connection(server.port) as (_, writer):
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await wait_until(served.is_set, what="the request")
        connection = server.connection
        own = {name for cls in type(connection).__mro__ for name in getattr(cls, "__slots__", ())}
        assert own.isdisjoint(vars(connection))
        assert len(vars(connection)) <= _SHARED_KEYS
