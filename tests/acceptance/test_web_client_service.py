"""The browser and Node client in Node with real service processes, judged by the checker."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.acceptance.conftest import Project, Services
from tests.conftest import StartService
from tests.support.api import Api
from tests.support.buffering_proxy import BufferingProxy
from tests.support.checker import check
from tests.support.node_client import NodeClient
from tests.support.signing import token
from tests.support.tcp_proxy import TcpProxy
from tests.support.waiting import wait_until
from tests.support.writer import Writer

pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="needs node")

_SEED = 11
# Posts while connections are cut, at forty a second: five seconds, or a minute.
_POSTS_WHILE_CUT = 2400 if os.environ.get("SEQSTREAM_LONG_CLIENTS") else 200
_CREDENTIALS = {"token": token("owner", scope="read write")}


def _client(name: str, port: int, project_id: str, **more: object) -> NodeClient:
    options = {"credentials": _CREDENTIALS, "after": 0}
    return NodeClient(name, f"http://127.0.0.1:{port}", project_id, options, **more)


async def _judge(
    project: Project, clients: Sequence[NodeClient], writers: Sequence[Writer]
) -> None:
    """Every client shows the log, and heard nothing that contradicts it."""
    log = await project.api.log(project.id)
    for client in clients:
        await client.wait_shown(log)
    report = check(
        posts=[
            *(post for client in clients for post in client.posts),
            *(post for writer in writers for post in writer.posts),
        ],
        acknowledgements=[
            *(ack for client in clients for ack in client.acknowledgements()),
            *(ack for writer in writers for ack in writer.acknowledgements),
        ],
        clients=[client.history() for client in clients],
        log=log,
    )
    assert report.ok, str(report)


async def test_live_messages_and_own_ones(services: Services, project: Project) -> None:
    """§2 G3, G4: two clients on two processes show the same log, the sender's included."""
    async with (
        _client("one", services.a.port, project.id) as one,
        _client("two", services.b.port, project.id) as two,
        Writer("w", [services.a.url], project.id, "owner", posts_per_s=100, seed=_SEED) as writer,
    ):
        await one.wait_status("live")
        await two.wait_status("live")
        for number in range(20):
            one.send(f"one {number} \u2028\r\n🧵", "owner")
        await wait_until(lambda: one.count("receipt") == 20, what="the receipts")
        await writer.finish()
        await _judge(project, [one, two], [writer])
        shown = (await one.shown()).messages
        assert {post.client_msg_id for post in one.posts} <= {item.key for item in shown}


async def test_cuts_at_random_lose_and_repeat_nothing(services: Services, project: Project) -> None:
    """§2 G3, G5: streams and posts are cut at any byte; the client resumes and sends again."""
    chance = random.Random(_SEED)
    async with (
        TcpProxy(services.a.port, seed=_SEED) as proxy,
        _client("cut", proxy.port, project.id) as client,
        Writer("w", [services.b.url], project.id, "owner", posts_per_s=40, seed=_SEED) as writer,
    ):
        proxy.delay_s = 0.002
        next_cut, sent = 10, 0
        # On a busy machine a client may take long to come back: a cut finds nothing then.
        while len(writer.acknowledgements) < _POSTS_WHILE_CUT or client.count("open") <= 3:
            posted = len(writer.acknowledgements)
            if posted >= next_cut:
                proxy.cut()
                next_cut = posted + chance.randrange(1, 40)
            if posted >= sent * 10:
                sent += 1
                client.send(f"mine {sent}", "owner")
            await wait_until(lambda n=posted: len(writer.acknowledgements) > n)
            writer.raise_if_failed()
        await writer.finish()
        await proxy.heal()
        await wait_until(lambda: client.count("receipt") == sent, timeout_s=30, what="the receipts")
        await _judge(project, [client], [writer])
        assert client.count("open") > 3
        assert client.count("failed") == 0


async def test_more_than_the_window_missed_is_fetched(services: Services, project: Project) -> None:
    """§6: `replay.end` names a range, and the client fetches it from the history by itself."""
    async with (
        TcpProxy(services.a.port) as proxy,
        _client("away", proxy.port, project.id) as client,
    ):
        await client.wait_status("live")
        await project.fill(3)
        await wait_until(lambda: client.count("event", "message.new") == 3, what="live messages")
        await proxy.refuse()
        await project.fill(900)
        await proxy.heal()
        await wait_until(lambda: client.count("event", "replay.end") == 1, timeout_s=30)
        await project.fill(905)
        log = await project.api.log(project.id)
        await client.wait_shown(log)
        assert [row.seq for row in log] == list(range(1, 906))


async def test_newest_first_and_older_ones_on_demand(services: Services, project: Project) -> None:
    """§6: one request, `tail=`, is a page's whole start; the rest comes page by page."""
    await project.fill(120)
    options = {"credentials": _CREDENTIALS, "tail": 50}
    async with NodeClient("start", services.a.url, project.id, options) as client:
        await client.wait_status("live")
        assert client.count("event", "message.replay") == 50
        log = await project.api.log(project.id)
        await client.wait_shown(log[70:])
        assert await client.load_older(60)
        await client.wait_shown(log[10:])
        assert not await client.load_older(60)
        await client.wait_shown(log)


async def test_service_that_ends_and_starts_again(
    start_service: StartService, tmp_path: Path
) -> None:
    """§6: after SIGTERM the client waits as it was told; what it sends meanwhile is sent later."""
    service = await start_service()
    async with Api(service.url, "owner") as api:
        await api.create_project("restarted")
        project = Project("restarted", api, token("owner"))
        async with _client("kept", service.port, project.id) as client:
            await client.wait_status("live")
            client.send("before", "owner")
            await wait_until(lambda: client.count("receipt") == 1, what="the receipt")
            assert await service.terminate() == 0
            await wait_until(lambda: client.count("event", "stream.closing") == 1)
            client.send("meanwhile", "owner")
            await service.start()
            # It comes back after a pause that grows while the service is away.
            await wait_until(lambda: client.count("receipt") == 2, timeout_s=60, what="the receipt")
            await client.wait_status("live", timeout_s=60)
            await _judge(project, [client], [])


@pytest.mark.parametrize("hide_expiry", [False, True], ids=["ahead", "when_refused"])
async def test_token_is_renewed(services: Services, project: Project, hide_expiry: bool) -> None:
    """§3: a token ends soon; the stream goes on with another one, before or after that."""
    # Renewed a fifth of its life before its end: that must be longer than a busy machine's pause.
    ttl_s = 2 if hide_expiry else 8
    mint = {"url": services.a.url, "token": token("owner", scope="read write"), "ttlSeconds": ttl_s}
    options = {"after": 0}
    client = NodeClient(
        "renewing", services.a.url, project.id, options, mint={**mint, "hideExpiry": hide_expiry}
    )
    async with client:
        await client.wait_status("live")
        await project.fill(2)
        await wait_until(lambda: client.count("minted") >= 2, timeout_s=30, what="another token")
        await project.fill(4)
        await client.wait_shown(await project.api.log(project.id))
        closings = client.count("event", "stream.closing")
        assert (closings > 0) == hide_expiry
        assert client.status != "refused"


async def test_proxy_that_holds_streams_back(services: Services, project: Project) -> None:
    """Without a byte of the stream the client polls the history, until the stream comes through."""
    # The wait for a first byte, and what the pauses before the next tries grow to.
    timers = {"10000": 1000} | {str(pause): 300 for pause in (18000, 36000, 72000, 144000, 180000)}
    async with BufferingProxy(services.a.port) as proxy:
        async with _client("polling", proxy.port, project.id, timers=timers) as client:
            await client.wait_status("polling")
            client.send("mine", "owner")
            await wait_until(lambda: client.count("receipt") == 1, what="the receipt")
            await wait_until(lambda: client.count("open") >= 3, timeout_s=30, what="another try")
            await wait_until(lambda: client.count("event", "history.page") >= 1, what="a page")
            assert client.count("event", "stream.open") == 0
            proxy.is_buffering = False
            await client.wait_status("live", timeout_s=30)
            client.send("mine again", "owner")
            await wait_until(lambda: client.count("receipt") == 2, what="the receipt")
            await _judge(project, [client], [])


async def test_stranger_is_refused_and_does_not_come_back(
    services: Services, project: Project
) -> None:
    """§3: 403 is final, and asked once."""
    options = {"credentials": {"token": token("stranger")}, "after": 0}
    async with NodeClient("stranger", services.a.url, project.id, options) as client:
        await client.wait_status("refused")
        assert client.count("reason", "UNAUTHORIZED_PROJECT_ACCESS") == 1
        assert client.count("open") == 1


async def test_removed_member_is_told_and_stays_away(services: Services, project: Project) -> None:
    """§3: a stream that ends with `access_revoked` is not opened again."""
    await project.api.add_member(project.id, "guest")
    options = {"credentials": {"token": token("guest")}, "after": 0}
    async with NodeClient("guest", services.a.url, project.id, options) as client:
        await client.wait_status("live")
        await project.api.request("DELETE", f"/v1/projects/{project.id}/members/guest")
        await client.wait_status("closed")
        assert client.count("reason", "access_revoked") == 1
