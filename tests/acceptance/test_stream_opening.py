"""docs/protocol.md §6: how a stream opens, as literal bytes over real HTTP."""

from __future__ import annotations

import re

import pytest

from tests.acceptance.conftest import Project, Services
from tests.support.raw_stream import RawResponse, raw_request
from tests.support.signing import signed_headers, token


def _normal(block: bytes) -> bytes:
    return re.sub(rb'"connectionId":"[0-9a-f]+"', b'"connectionId":"X"', block)


def _open(
    project: Project, cursor: str, head: int, truncated: str, source: str, *, position: int
) -> bytes:
    return (
        "event: stream.open\nretry: 2000\n"
        f'data: {{"projectId":"{project.id}","connectionId":"X",'
        f'"cursor":{cursor},"headSeq":{head},"truncated":{truncated},'
        f'"source":"{source}"}}\nid: {position}'
    ).encode()


def _live(project: Project, head: int) -> bytes:
    data = f'{{"projectId":"{project.id}","headSeq":{head}}}'
    return f"event: stream.live\ndata: {data}".encode()


async def _opening(
    services: Services, target: str, headers: dict[str, str] | None = None
) -> RawResponse:
    async with raw_request(services.a.port, target, headers=headers) as response:
        await response.wait_for("stream.live")
        return response


async def test_stream_headers_forbid_caching_buffering_and_compression(
    services: Services, project: Project
) -> None:
    """§6: `text/event-stream`, `no-store, no-transform`, no buffering, no compression."""
    headers = {"Accept": "text/event-stream", "Accept-Encoding": "gzip, br"}
    async with raw_request(services.a.port, project.stream(), headers=headers) as response:
        assert response.status == 200
        assert response.header("content-type") == "text/event-stream; charset=utf-8"
        assert response.header("cache-control") == "no-store, no-transform"
        assert response.header("x-accel-buffering") == "no"
        assert response.header("content-encoding") is None
        assert response.header("x-request-id")


async def test_without_a_cursor_the_stream_is_live_from_head(
    services: Services, project: Project
) -> None:
    """§6: the blocks are `stream.open` with `retry:` and `id: <head>`, and `stream.live`."""
    await project.fill(3)
    response = await _opening(services, project.stream())
    assert [_normal(block) for block in response.blocks] == [
        _open(project, "null", 3, "false", "none", position=3),
        _live(project, 3),
    ]


async def test_a_replay_comes_between_open_and_live(services: Services, project: Project) -> None:
    """§6: missed messages come as `message.replay`, oldest first, with the bytes of the history."""
    await project.fill(4)
    log = await project.api.log(project.id)
    response = await _opening(services, project.stream("from_seq=2"))
    blocks = [_normal(block) for block in response.blocks]
    opening = _open(project, "2", 4, "false", "memory", position=2)
    assert blocks[0].replace(b'"redis"', b'"memory"') == opening
    assert blocks[1:3] == [
        b"event: message.replay\ndata: %b\nid: %d" % (row.data, row.seq) for row in log[2:]
    ]
    assert blocks[3:] == [_live(project, 4)]


async def test_from_seq_0_replays_from_the_beginning(services: Services, project: Project) -> None:
    """§6: `from_seq=0` is a cursor before the first message."""
    await project.fill(2)
    response = await _opening(services, project.stream("from_seq=0"))
    assert response.blocks[0].endswith(b"}\nid: 0")
    assert response.names.count("message.replay") == 2


@pytest.mark.parametrize("query", ["lastEventId=2", "last_event_id=2", "from_seq=2"])
async def test_the_cursor_may_be_in_the_query(
    services: Services, project: Project, query: str
) -> None:
    """§6: without a header the query has it; polyfills send it as `lastEventId`."""
    await project.fill(3)
    response = await _opening(services, project.stream(query))
    assert response.blocks[0].endswith(b"}\nid: 2")


async def test_the_cursor_header_takes_precedence_over_the_query(
    services: Services, project: Project
) -> None:
    """§6: a reconnecting EventSource repeats its old URL with the old cursor."""
    await project.fill(3)
    response = await _opening(services, project.stream("from_seq=0"), {"Last-Event-ID": "2"})
    assert response.blocks[0].endswith(b"}\nid: 2")
    assert response.names.count("message.replay") == 1


async def test_a_replay_above_200_messages_ends_with_the_missing_range(
    services: Services, project: Project
) -> None:
    """§6: `replay.end` has the range as literal bytes; the stream is then live after head."""
    await project.fill(450)
    async with raw_request(services.a.port, project.stream("from_seq=100")) as response:
        await response.wait_for("stream.live")
        blocks = response.blocks
        assert response.names.count("message.replay") == 200
        assert blocks[-2].startswith(b"event: replay.end\ndata: {")
        expected = (
            f'"projectId":"{project.id}","lastReplayedSeq":300,"liveFromSeq":451,"hasMore":true'
        )
        assert expected.encode() in blocks[-2]
        assert blocks[-1] == _live(project, 450)
        await project.fill(451)
        await response.wait_for("message.new")
        assert response.blocks[-1].endswith(b"}\nid: 451")


@pytest.mark.parametrize(
    ("cursor", "reason"),
    [
        ("garbage", "invalid_cursor"), ("-1", "invalid_cursor"), ("1-0", "invalid_cursor"),
        ("1.5", "invalid_cursor"), ("007", "invalid_cursor"), ("9" * 30, "invalid_cursor"),
        ("4", "cursor_ahead"), ("9007199254740991", "cursor_ahead"),
    ],
)  # fmt: skip
async def test_an_unusable_cursor_gets_a_stream_reset(
    services: Services, project: Project, cursor: str, reason: str
) -> None:
    """§6: `stream.reset`, then live from head; the first block has the new cursor."""
    await project.fill(3)
    async with raw_request(
        services.a.port, project.stream(), headers={"Last-Event-ID": cursor}
    ) as response:
        await response.wait_for("stream.live")
        data = f'{{"projectId":"{project.id}","reason":"{reason}","firstSeq":1,"headSeq":3}}'
        assert [_normal(block) for block in response.blocks] == [
            _open(project, "null", 3, "false", "none", position=3),
            f"event: stream.reset\nretry: 2000\ndata: {data}\nid: 3".encode(),
            _live(project, 3),
        ]
        await project.fill(4)
        await response.wait_for("message.new")


@pytest.mark.parametrize(
    ("tail", "first"), [(1, 4), (3, 2), (4, 1), (200, 1)], ids=["1", "3", "all", "more than all"]
)
async def test_a_tail_begins_with_the_newest_messages(
    services: Services, project: Project, tail: int, first: int
) -> None:
    """§6: `tail` is the newest so many and then live; the id lets an early reconnect resume."""
    await project.fill(4)
    response = await _opening(services, project.stream(f"tail={tail}"))
    opening = _open(project, "null", 4, "false", "memory", position=first - 1)
    assert _normal(response.blocks[0]).replace(b'"redis"', b'"memory"') == opening
    assert [block.split(b"\n")[2] for block in response.blocks[1:-1]] == [
        b"id: %d" % seq for seq in range(first, 5)
    ]


async def test_a_cursor_takes_precedence_over_a_tail(services: Services, project: Project) -> None:
    """§6: a client that reconnects repeats its old URL with `tail` in it."""
    await project.fill(4)
    response = await _opening(services, project.stream("tail=3"), {"Last-Event-ID": "3"})
    assert response.names == ["stream.open", "message.replay", "stream.live"]


async def test_a_tail_of_an_empty_project_is_empty(services: Services, project: Project) -> None:
    """§6: there is nothing to send first; the stream is live from the beginning."""
    response = await _opening(services, project.stream("tail=50"))
    assert response.names == ["stream.open", "stream.live"]
    assert response.blocks[0].endswith(b"}\nid: 0")


@pytest.mark.parametrize("query", ["tail=0", "tail=201", "tail=x", "heartbeat=1", "heartbeat=61"])
async def test_a_bad_parameter_is_an_error_that_names_it(
    services: Services, project: Project, query: str
) -> None:
    """§4: 400 `VALIDATION_FAILED`, which a client must not retry."""
    target = project.stream(query)
    headers = {"Accept": "text/event-stream"}
    async with raw_request(services.a.port, target, headers=headers) as response:
        assert response.status == 400
        await response.wait_end()
        assert f'"field":"{query.split("=")[0]}"'.encode() in response.body


async def test_a_client_may_ask_for_more_frequent_heartbeats(
    services: Services, project: Project
) -> None:
    """§6: `heartbeat=2..60`, for clients whose HTTP library gives up after 5 s of silence."""
    async with raw_request(services.a.port, project.stream("heartbeat=2")) as response:
        # The service's own interval is 15 s.
        await response.wait_for("heartbeat", timeout_s=10)


async def test_an_empty_cursor_is_treated_as_no_cursor(
    services: Services, project: Project
) -> None:
    """§6: a browser without a cursor may send an empty header."""
    await project.fill(2)
    response = await _opening(services, project.stream("from_seq="), {"Last-Event-ID": ""})
    assert response.names == ["stream.open", "stream.live"]


async def test_a_live_message_is_framed_with_its_seq(services: Services, project: Project) -> None:
    """§6: `message.new` with the seq as id, and as data what the history has, on one line."""
    async with raw_request(services.b.port, project.stream()) as response:
        await response.wait_for("stream.live")
        await project.api.post(project.id, "line one\nline two\r\u2028 ")
        await response.wait_for("message.new")
        (row,) = await project.api.log(project.id)
        data = row.data.replace("\u2028".encode(), b"\\u2028")
        assert response.blocks[-1] == b"event: message.new\ndata: " + data + b"\nid: 1"


async def test_a_signed_request_opens_a_stream(services: Services, project: Project) -> None:
    """§3: a trusted proxy signs requests on behalf of its user."""
    target = f"/v1/projects/{project.id}/chat/stream?from_seq=0"
    response = await _opening(services, target, signed_headers("GET", target, "owner"))
    assert response.status == 200


@pytest.mark.parametrize("header", ["Authorization", "Cookie"])
async def test_a_token_in_a_header_opens_a_stream(
    services: Services, project: Project, header: str
) -> None:
    """§3: `Authorization: Bearer`, or the cookie `seqstream_token`."""
    value = {
        "Authorization": f"Bearer {project.token}",
        "Cookie": f"seqstream_token={project.token}",
    }
    target = f"/v1/projects/{project.id}/chat/stream"
    response = await _opening(services, target, {header: value[header]})
    assert response.status == 200


async def test_a_permanent_refusal_is_an_http_error(services: Services, project: Project) -> None:
    """§6: only 400, 401 and 403, since EventSource never reconnects after a status but 200."""
    base = f"/v1/projects/{project.id}/chat/stream"
    for target, status in [
        (base, 401),
        (f"{base}?token=bad", 401),
        (f"{base}?token={token('owner', ttl_s=-5)}", 401),
        (f"{base}?token={token('stranger')}", 403),
        (f"{base}?token={token('owner', projects=['other'])}", 403),
        (f"{base}?token={token('owner', scope='write')}", 403),
        (f"/v1/projects/no-such/chat/stream?token={project.token}", 403),
        (f"/v1/projects/b%20d/chat/stream?token={project.token}", 400),
    ]:
        headers = {"Accept": "text/event-stream"}
        async with raw_request(services.a.port, target, headers=headers) as response:
            assert response.status == status, target
            assert response.header("content-type") == "application/json"
