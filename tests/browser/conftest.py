"""Fixture of the browser tests: one real browser."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Browser, async_playwright, expect

# Of a condition that comes true at once on an idle machine. A busy one takes its time.
expect.set_options(timeout=20_000)

_CHROMIUM = shutil.which("chromium")
# Without these Chromium contacts its vendor's hosts at every start.
_QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
async def browser() -> AsyncIterator[Browser]:
    """One browser for all tests; each test opens its own page in a fresh profile."""
    if _CHROMIUM is None:
        pytest.skip("Debian's chromium is not installed")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=_CHROMIUM, args=_QUIET)
        yield browser
        await browser.close()
