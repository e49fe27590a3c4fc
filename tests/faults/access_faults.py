"""Members are removed during the load: G9 of docs/protocol.md §2."""

from __future__ import annotations

import asyncio
import re
from contextlib import AsyncExitStack

import httpx

from tests.faults.load import OWNER, PROJECT, Size
from tests.faults.scenario import Fault, Scene
from tests.faults.world import Plan
from tests.support.api import Api
from tests.support.build_checker import StatusGuarantee
from tests.support.processes import ServiceProcess
from tests.support.raw_stream import raw_connection
from tests.support.signing import token

_LEAVERS = 4
_PROMISED_S = 5.0  # G9
_TO_FILL_A_SOCKET = 150  # messages of 40 kB: the kernel's buffers of a connection hold 4 MB
_READ_TIMEOUT_S = 15.0


async def removed_while_full(scene: Scene) -> None:
    """Members who do not read are removed; later they read everything that was sent to them."""
    services = scene.world.services
    async with AsyncExitStack() as stack:
        api = await stack.enter_async_context(Api(services[0].url, OWNER))
        readers: dict[str, asyncio.StreamReader] = {}
        for number in range(_LEAVERS):
            user = f"leaver-{number}"
            await api.add_member(PROJECT, user)
            reader, writer = await stack.enter_async_context(
                raw_connection(services[number % len(services)].port, receive_buffer_bytes=4096)
            )
            target = f"/v1/projects/{PROJECT}/chat/stream?token={token(user)}"
            writer.write(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            async with asyncio.timeout(_READ_TIMEOUT_S):
                await reader.readuntil(b"stream.live")
            readers[user] = reader
        await scene.load.wait_acknowledged(_TO_FILL_A_SOCKET, timeout_s=60)
        at_removal = await _head(scene)
        for user in readers:
            path = f"/v1/projects/{PROJECT}/members/{user}"
            (await api.request("DELETE", path)).raise_for_status()
        await asyncio.sleep(_PROMISED_S)
        allowed = await _head(scene)
        # Posts continue: messages committed from now on must not reach them.
        await scene.last()
        received = await asyncio.gather(*map(_rest, readers.values()))
    for user, got in zip(readers, received, strict=True):
        seqs = [int(seq) for seq in re.findall(rb"\nid: (\d+)\n", got)]
        assert seqs, f"{user} received nothing"
        assert seqs[-1] < at_removal, f"{user}'s socket was not full"
        # No part of a later message may reach them either.
        assert seqs[-1] <= allowed, f"{user} received {seqs[-1]}: more than {allowed}"
    revoked = sum([await _revoked(service) for service in services])
    assert revoked == _LEAVERS, f"{revoked} streams were ended for their access"
    scene.notes.append(f"head {at_removal} at the removal, {allowed} when it must have ended")


async def _head(scene: Scene) -> int:
    return int(await scene.world.psql(f"SELECT last_seq FROM projects WHERE id = '{PROJECT}'"))


async def _rest(reader: asyncio.StreamReader) -> bytes:
    """Read to the end of the stream; raises AssertionError when there is none."""
    got = bytearray()
    try:
        async with asyncio.timeout(_READ_TIMEOUT_S):
            while data := await reader.read(65_536):
                got += data
    except ConnectionError:
        pass  # cut off
    except TimeoutError:
        raise AssertionError(f"a removed member still receives, {len(got)} bytes later") from None
    return bytes(got)


async def _revoked(service: ServiceProcess) -> int:
    async with httpx.AsyncClient(verify=False, trust_env=False) as http:
        text = (await http.get(f"{service.url}/metrics")).text
    found = re.search(r'^sse_closed_total\{reason="access_revoked"\} (\S+)$', text, re.MULTILINE)
    return 0 if found is None else int(float(found[1]))


FAULTS = [
    Fault(
        "access removed while the socket is full",
        removed_while_full,
        # With the default, the service would close the streams earlier, as slow clients.
        Plan(settings={"SEQSTREAM_SLOW_CLIENT_SECONDS": "60"}),
        size=Size(clients=4, slow=0, stalled=0, posts_per_s=80.0, filler_bytes=40_000),
        statuses=StatusGuarantee.ALL,
    ),
]
