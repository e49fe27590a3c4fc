"""A message whose process dies between commit and publishing reaches other processes' streams."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from service.operate.embedded import PostgresServer
from tests.faults.world import Plan, SharedPostgres, World
from tests.support.api import Api
from tests.support.signing import token
from tests.support.sse_client import SseClient


@pytest.mark.timeout(120, method="signal")  # a thread would end pytest and leave servers
async def test_an_unpublished_message_is_delivered_without_another_post(
    tmp_path: Path, postgres: PostgresServer, template_database: str
) -> None:
    """G1: the heads poll finds the message; no later post publishes it."""
    plan = Plan(first_service={"SEQSTREAM_FAULT": "kill-before-publish:1"})
    async with World(plan, tmp_path, SharedPostgres(postgres, template_database), seed=1) as world:
        killed, other = world.services
        async with Api(other.url, "u") as api:
            await api.create_project("p")
        async with (
            SseClient("a", [other.url], "p", token("u"), from_seq=None) as client,
            Api(killed.url, "u") as api,
        ):
            await client.wait_live()
            with pytest.raises(httpx.TransportError):
                await api.post("p", "hello", "c1")
            assert await killed.wait_end() == -9
            await client.wait_seq(1, timeout_s=10)
            assert b'"client_msg_id":"c1"' in client.events("message.new")[0].data
