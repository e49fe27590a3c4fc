"""Another service than this project's: a few lines of SSE server, described by a file."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from tests.clients import scenarios
from tests.clients.cells import Outcome, State
from tests.clients.nginx_front import DOCUMENT
from tests.clients.other_target import OtherTarget, other_target
from tests.clients.runner import Job, run_cell, run_program
from tests.clients.target import Control
from tests.clients.test_catalogue import CLIENT

_SCENARIOS = {scenario.name: scenario for scenario in scenarios.ALL}
_FILE = """
name = "few lines"
stream_url = "http://127.0.0.1:{port}/streams/{{channel}}"
ready_event = "ready"

[post]
url = "http://127.0.0.1:{port}/streams/{{channel}}"
body = '{{"say": {{text}}}}'

[reading]
message_events = ["said"]
text = "say"
"""


@asynccontextmanager
async def _few_lines(*, loses: int | None = None) -> AsyncIterator[int]:
    """A server that sends what is posted to whoever has a stream; it may lose the n-th message."""
    streams: set[asyncio.StreamWriter] = set()
    posts = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal posts
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            if head.startswith(b"get"):
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
                writer.write(b"event: ready\ndata: {}\n\n")
                streams.add(writer)
                await reader.read()
                streams.discard(writer)
                return
            length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
            body = await reader.readexactly(length)
            posts += 1
            for stream in streams if posts != loses else ():
                stream.write(b"event: said\ndata: %b\n\n" % body)
            writer.write(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


def _target(folder: Path, port: int) -> OtherTarget:
    path = folder / "target.toml"
    path.write_text(_FILE.format(port=port))
    return other_target(path)


async def _live(folder: Path, port: int) -> Outcome:
    command = ["bash", "programs/shell/curl_bare.sh"]
    return await run_program(_target(folder, port), _SCENARIOS["live"], command, None, folder)


async def test_a_client_is_judged_on_another_service(tmp_path: Path) -> None:
    """A stream, a way to post, and where the text stands are all that it takes."""
    async with _few_lines() as port:
        outcome = await _live(tmp_path, port)
    assert outcome.details == ()


async def test_a_service_that_loses_is_found_out(tmp_path: Path) -> None:
    """The verdict does not depend on numbers in the data."""
    async with _few_lines(loses=7) as port:
        outcome = await _live(tmp_path, port)
    assert not outcome.ok
    assert any(detail.startswith("lost: message ('at once 2')") for detail in outcome.details)


async def test_what_a_service_does_not_offer_is_not_run(tmp_path: Path) -> None:
    """It has no heartbeat, no history, no way to restart it: never ok."""
    target = _target(tmp_path, 1)
    for name in ("restart", "refusal", "heartbeats", "missed"):
        cell = await run_cell(target, Job(CLIENT, _SCENARIOS[name]), tmp_path)
        assert cell.state is State.NOT_RUN


def test_the_file_in_the_document_is_accepted(tmp_path: Path) -> None:
    """docs/clients.md: what a reader copies."""
    found = re.search(r"^```toml\n(.*?)^```$", DOCUMENT.read_text(encoding="utf-8"), re.M | re.S)
    assert found is not None
    path = tmp_path / "target.toml"
    path.write_text(found[1])
    assert other_target(path).controls == {Control.HEARTBEAT, Control.LOOPBACK}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (("[post]", "[posts]"), "post"),
        (("url =", "uri ="), "uri"),
        (('stream_url = "http:', 'stream_url = "https:'), "stream_url"),
        (('[post]\nurl = "http', '[post]\ncommand = ["say"]\nurl = "http'), "post"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, change: tuple[str, str], named: str) -> None:
    """The error names the field."""
    path = tmp_path / "target.toml"
    text = _FILE.format(port=1)
    assert change[0] in text
    path.write_text(text.replace(*change, 1))
    with pytest.raises(msgspec.ValidationError, match=named):
        other_target(path)
