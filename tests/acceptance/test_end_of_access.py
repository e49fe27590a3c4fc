"""docs/protocol.md §2, G9: a user who lost access gets no message posted afterwards."""

from __future__ import annotations

import asyncio
import re

import httpx
import pytest

from tests.acceptance.conftest import Project, Services
from tests.support.processes import ServiceProcess
from tests.support.raw_stream import raw_connection
from tests.support.signing import token
from tests.support.waiting import wait_until


async def _closed(process: ServiceProcess, reason: str) -> float:
    async with httpx.AsyncClient(trust_env=False, verify=False) as http:
        text = (await http.get(f"{process.url}/metrics")).text
    found = re.search(rf'^sse_closed_total{{reason="{reason}"}} (\S+)$', text, re.M)
    assert found is not None
    return float(found[1])


@pytest.mark.parametrize("reason", ["access_revoked", "token_expired"])
async def test_a_client_with_a_full_socket_gets_no_message_posted_after_its_access_ended(
    services: Services, project: Project, reason: str
) -> None:
    """G9: the client reads nothing until its access has ended, then all that was sent."""
    process = services.b
    await project.api.add_member(project.id, "leaver")
    ttl_s = 3600 if reason == "access_revoked" else 5
    target = f"/v1/projects/{project.id}/chat/stream?token={token('leaver', ttl_s=ttl_s)}"
    before = await _closed(process, reason)
    async with raw_connection(process.port, receive_buffer_bytes=4096) as (reader, writer):
        writer.write(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await reader.readuntil(b"stream.live")
        # Far more than the socket buffers of both sides hold.
        body = {"messages": [{"message": "before " + "x" * 60_000}] * 15}
        for _ in range(2):
            response = await project.api.request("POST", f"{project.messages}/batch", body)
            assert response.status_code == 201
        if reason == "access_revoked":
            path = f"/v1/projects/{project.id}/members/leaver"
            assert (await project.api.request("DELETE", path)).status_code == 204

        async def is_closed() -> bool:
            return await _closed(process, reason) > before

        # The socket is full; the stream ends long before the time limit for slow clients.
        await wait_until(is_closed, timeout_s=15, what="the end of the stream")
        await project.api.post(project.id, "after the end")
        got = b""
        try:
            while data := await asyncio.wait_for(reader.read(65_536), 10):
                got += data
        except ConnectionError:
            pass  # the service reset the connection
    assert b"before " in got
    assert b"after the end" not in got
    assert b"\nid: 31\n" not in got
