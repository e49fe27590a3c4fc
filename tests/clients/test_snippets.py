"""The snippets of docs/clients.md and README.md run as they are printed there.

Each is run against a real service, through a proxy that breaks its connection. What is in the
documents is compared with the files in `docs/snippets/`; a snippet with no file runs from its
document.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from typing import NamedTuple

import pytest
from playwright.async_api import Browser, Route, async_playwright

from service.operate.embedded import PostgresServer, RedisServer
from tests.support.api import Api
from tests.support.processes import ROOT, ServiceProcess, service_environment
from tests.support.signing import token
from tests.support.tcp_proxy import TcpProxy
from tests.support.waiting import wait_until

_SNIPPETS = ROOT / "docs" / "snippets"
_CLIENTS = (ROOT / "docs" / "clients.md").read_text(encoding="utf-8")
_README = (ROOT / "README.md").read_text(encoding="utf-8")
_README_URL = "http://127.0.0.1:8000"
_STREAM = "/v1/projects/demo/chat/stream"
_MESSAGES = "/v1/projects/demo/chat/messages"

_CHROMIUM = shutil.which("chromium")
# Without the last three Chromium contacts its vendor's hosts at every start.
_CHROMIUM_ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


class Block(NamedTuple):
    """A fenced block of a document: the words after the fence, and what it holds."""

    info: str
    text: str


def fenced_blocks(markdown: str) -> list[Block]:
    """Return the fenced blocks of a document, in order."""
    found = re.finditer(r"^```([^\n]*)\n(.*?)^```$", markdown, re.M | re.S)
    return [Block(each[1], each[2]) for each in found]


def section(markdown: str, title: str) -> str:
    """Return what stands under a heading of the second level."""
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", markdown, re.M | re.S)
    assert found is not None, f"there is no section {title}"
    return found[1]


def readme_block(language: str, part: str) -> str:
    """Return the README's only block of a language with `part` in it."""
    (text,) = [
        block.text for block in fenced_blocks(_README)
        if block.info == language and part in block.text
    ]  # fmt: skip
    return text


def snippet(name: str) -> str:
    """Return a file's text."""
    return (_SNIPPETS / name).read_text(encoding="utf-8")


def test_the_documents_snippets_are_the_files() -> None:
    """docs/clients.md: a block whose fence names a file is that file, and every file is shown."""
    named = [block for block in fenced_blocks(_CLIENTS) if len(block.info.split()) > 1]
    shown = {block.info.split()[1]: block.text for block in named}
    assert len(shown) == len(named)
    assert shown == {name: (ROOT / name).read_text(encoding="utf-8") for name in shown}

    listed = {block.info.split()[-1] for block in fenced_blocks(section(_CLIENTS, "Snippets"))}
    files = {str(path.relative_to(ROOT)) for path in _SNIPPETS.iterdir() if path.is_file()}
    assert files - listed == {"docs/snippets/ruff.toml"}


def test_the_readmes_clients_are_the_files() -> None:
    """README.md: what it shows of the clients is what is run here."""
    blocks = [block.text for block in fenced_blocks(_README)]
    for name in ("client.js", "react.jsx", "python_client.py"):
        assert snippet(name) in blocks, name


class Demo(NamedTuple):
    """The project `demo` of a running service, and a proxy in front of the service."""

    service: ServiceProcess
    proxy: TcpProxy
    api: Api

    @property
    def token(self) -> str:
        """A token that reads and writes the project."""
        return token("alice", projects=["demo"], scope="read write")

    @property
    def url(self) -> str:
        """The service's address behind the proxy."""
        return f"http://127.0.0.1:{self.proxy.port}"

    async def post(self, *texts: str) -> None:
        """Post messages, past the proxy."""
        for text in texts:
            await self.api.post("demo", text)

    async def post_around_a_cut(self, name: str, shown: Callable[[], Sequence[str]]) -> None:
        """Check that `shown` gets every text once: one live, two missed, one live again."""
        texts = [f"{name} {number}" for number in range(4)]
        mine = re.compile(rf"{re.escape(name)} \d+")

        def seen() -> list[str]:
            return [found[0] for line in shown() if (found := mine.search(line))]

        async def post_live(text: str) -> None:
            await self.post(text)
            await wait_until(lambda: text in seen(), timeout_s=30, what=f"{text} to be shown")

        await post_live(texts[0])
        await self.proxy.refuse()
        await self.post(*texts[1:3])
        await self.proxy.heal()
        await post_live(texts[3])
        assert seen() == texts


@pytest.fixture(scope="module")
async def demo(
    postgres: PostgresServer,
    template_database: str,
    redis_server: RedisServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Demo]:
    """A service of which clients reconnect soon."""
    environment = service_environment(
        postgres.create_database("snippets", template=template_database),
        redis_server.url,
        {"SEQSTREAM_RETRY_MS": "200"},
    )
    async with (
        ServiceProcess("snippets", tmp_path_factory.mktemp("snippets"), environment) as service,
        TcpProxy(service.port) as proxy,
        Api(service.url, "alice") as api,
    ):
        await api.create_project("demo")
        yield Demo(service, proxy, api)


@pytest.fixture(scope="module")
async def browser() -> AsyncIterator[Browser]:
    """One browser for this module."""
    if _CHROMIUM is None:
        pytest.skip("Debian's chromium is not installed")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=_CHROMIUM, args=_CHROMIUM_ARGUMENTS
        )
        yield browser
        await browser.close()


@contextlib.asynccontextmanager
async def running(*command: str, **environment: str) -> AsyncIterator[list[str]]:
    """Run a command; yield the lines that it printed so far, and end it with its children."""
    process = await asyncio.create_subprocess_exec(
        *command, env={"PATH": os.environ["PATH"], **environment}, cwd=ROOT,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    lines: list[str] = []

    async def read() -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            lines.append(line.decode().rstrip("\n"))  # noqa: PERF401 - read while it grows

    reading = asyncio.create_task(read())
    try:
        yield lines
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        await reading


@pytest.mark.parametrize(
    "command",
    [("bash", "docs/snippets/curl.sh"), (sys.executable, "docs/snippets/python_httpx.py")],
    ids=["curl", "httpx"],
)
async def test_a_program_prints_every_message_once(demo: Demo, command: tuple[str, ...]) -> None:
    """§6: with the last event's id it goes on where its connection broke."""
    url = f"{demo.url}{_STREAM}?from_seq=0"
    async with running(*command, STREAM_URL=url, TOKEN=demo.token) as lines:
        await demo.post_around_a_cut(command[-1], lambda: lines)


_EVENT_SOURCE = """
const show = (message) => shown.push(message.content.text);
"""
_OWN_CLIENT = """
let status;
const show = (messages, now) => {
  status = now;
  shown.splice(0, shown.length, ...messages.map((item) => item.text));
};
"""


@pytest.mark.parametrize(
    ("script", "setting", "is_open"),
    [
        (snippet("eventsource.js"), _EVENT_SOURCE, "source.readyState === EventSource.OPEN"),
        (
            readme_block("js", "EventSource"),
            _EVENT_SOURCE,
            "source.readyState === EventSource.OPEN",
        ),
        (snippet("client.js"), _OWN_CLIENT, "status === 'live' && shown.includes('hello')"),
    ],
    ids=["EventSource", "README.md", "own client"],
)
async def test_a_page_shows_every_message_once(
    demo: Demo,
    browser: Browser,
    script: str,
    setting: str,
    is_open: str,
    request: pytest.FixtureRequest,
) -> None:
    """§6: it resumes by itself; `token` and `show` are the page's."""
    setting = f"const token = {json.dumps(demo.token)}, shown = [];{setting}"
    kind = ' type="module"' if "import " in script else ""
    body = f"<!doctype html><script>{setting}</script><script{kind}>{script}</script>"
    shown: list[str] = []

    async def serve(route: Route) -> None:
        await route.fulfill(content_type="text/html", body=body)

    async with await browser.new_context() as context:
        page = await context.new_page()
        # Of the service's origin, as a page that it serves.
        await page.route(f"{demo.url}/page", serve)
        await page.goto(f"{demo.url}/page")
        await page.wait_for_function(is_open)

        async def look() -> None:
            while True:
                shown[:] = await page.evaluate("shown")
                await asyncio.sleep(0.02)

        looking = asyncio.create_task(look())
        try:
            await demo.post_around_a_cut(request.node.name, lambda: shown)
        finally:
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)


async def test_the_readmes_curl_lines_post_and_follow(demo: Demo) -> None:
    """README.md: what is typed after `make run` posts a message and prints it."""
    follow, post = (
        readme_block("sh", part).replace(_README_URL, demo.url) for part in ("curl -N", "curl -H")
    )
    async with (
        running("bash", "-c", follow, TOKEN=demo.token) as followed,
        running("bash", "-c", post, TOKEN=demo.token) as posted,
    ):
        await wait_until(lambda: any('"success":true' in line for line in posted))
        await wait_until(lambda: any('"client_msg_id":"first"' in line for line in followed))
