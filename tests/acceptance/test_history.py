"""docs/protocol.md §4: reading the history: bounds, pages, and which pages are cacheable."""

from __future__ import annotations

import msgspec
import pytest

from tests.acceptance.conftest import Project, Services
from tests.support.api import Api
from tests.support.raw_stream import raw_request


async def _page(project: Project, **query: object) -> tuple[list[int], dict[str, object]]:
    response = await project.api.request("GET", project.messages, query=query)
    assert response.status_code == 200, response.text
    page: dict[str, object] = response.json()
    messages = msgspec.convert(page["messages"], list[dict[str, object]])
    return [int(str(each["seq"])) for each in messages], page


async def test_an_empty_project_has_an_empty_page(project: Project) -> None:
    """§4: the page is `{messages, headSeq, hasMore, nextAfterSeq}`."""
    _, page = await _page(project)
    assert page == {"messages": [], "headSeq": 0, "hasMore": False, "nextAfterSeq": 0}


@pytest.mark.parametrize(
    ("query", "seqs", "has_more"),
    [
        ({"limit": 3}, [1, 2, 3], True),
        ({"after_seq": 3, "limit": 3}, [4, 5, 6], True),
        ({"after_seq": 7, "limit": 3}, [8, 9, 10], False),
        ({"after_seq": 8, "limit": 3}, [9, 10], False),
        ({"after_seq": 10}, [], False),
        ({"after_seq": 99}, [], False),
        ({"order": "desc", "limit": 3}, [10, 9, 8], True),
        ({"order": "desc", "before_seq": 4, "limit": 3}, [3, 2, 1], False),
        ({"order": "desc", "before_seq": 5, "limit": 3}, [4, 3, 2], True),
        ({"after_seq": 2, "before_seq": 6}, [3, 4, 5], False),
        ({"after_seq": 2, "before_seq": 6, "limit": 3}, [3, 4, 5], False),
        ({"after_seq": 2, "before_seq": 7, "limit": 3}, [3, 4, 5], True),
        ({"order": "desc", "after_seq": 7, "limit": 3}, [10, 9, 8], False),
        ({"after_seq": 0, "before_seq": 1}, [], False),
    ],
)
async def test_a_page_respects_its_bounds_and_limit(
    project: Project, query: dict[str, object], seqs: list[int], has_more: bool
) -> None:
    """§4: bounds are exclusive; `hasMore` refers to the requested range."""
    await project.fill(10)
    found, page = await _page(project, **query)
    assert found == seqs
    assert (page["hasMore"], page["headSeq"]) == (has_more, 10)


async def test_a_reader_pages_through_to_the_end(project: Project) -> None:
    """§4: an ascending reader continues at `nextAfterSeq`."""
    await project.fill(23)
    got, page = await _page(project, limit=5)
    for _ in range(4):
        assert page["hasMore"]
        found, page = await _page(project, after_seq=page["nextAfterSeq"], limit=5)
        got += found
    assert not page["hasMore"]
    assert got == list(range(1, 24))


@pytest.mark.parametrize(
    "query",
    [{"limit": 0}, {"limit": 501}, {"limit": "x"}, {"after_seq": -1}, {"before_seq": "1.5"},
     {"order": "up"}, {"after_seq": 2**60}],
)  # fmt: skip
async def test_a_bad_parameter_is_400_and_named(project: Project, query: dict[str, object]) -> None:
    """§4: `details` name the field."""
    response = await project.api.request("GET", project.messages, query=query)
    error = response.json()
    assert (response.status_code, error["code"]) == (400, "VALIDATION_FAILED")
    assert [each["field"] for each in error["details"]] == list(query)


async def test_a_history_message_equals_the_events_data(
    services: Services, project: Project
) -> None:
    """§4: they are equal byte for byte."""
    body = {"message": "a\nb", "client_msg_id": "c", "metadata": {"k": [1, None]}, "parentId": "m"}
    await project.api.request("POST", project.messages, body)
    (row,) = await project.api.log(project.id)
    async with raw_request(services.b.port, project.stream("from_seq=0")) as response:
        await response.wait_for("stream.live")
        assert b"\ndata: " + row.data in response.blocks[1]


async def test_a_full_page_below_head_is_immutable(project: Project) -> None:
    """§4: it has an `ETag` and `Cache-Control: private, immutable`; a match is 304, no body."""
    await project.fill(10)
    query: dict[str, object] = {"after_seq": 2, "limit": 4}
    response = await project.api.request("GET", project.messages, query=query)
    assert "private" in response.headers["cache-control"]
    assert "immutable" in response.headers["cache-control"]
    tag = response.headers["etag"]
    again = await project.api.request(
        "GET", project.messages, query=query, headers={"If-None-Match": tag}
    )
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)


@pytest.mark.parametrize("query", [{"limit": 50}, {"after_seq": 6, "limit": 4}, {"after_seq": 20}])
async def test_a_page_that_may_grow_is_not_cached(
    project: Project, query: dict[str, object]
) -> None:
    """§4: only a full page that ends before head is cacheable."""
    await project.fill(10)
    response = await project.api.request("GET", project.messages, query=query)
    assert "etag" not in response.headers
    assert "immutable" not in response.headers["cache-control"]


async def test_etags_of_different_pages_differ(project: Project) -> None:
    """A cache must not return another page's messages."""
    await project.fill(10)
    tags = set()
    queries: list[dict[str, object]] = [
        {"limit": 3},
        {"limit": 4},
        {"after_seq": 1, "limit": 3},
        {"order": "desc", "before_seq": 4, "limit": 3},
    ]
    for query in queries:
        response = await project.api.request("GET", project.messages, query=query)
        tags.add(response.headers["etag"])
    assert len(tags) == len(queries)


async def test_an_etag_gives_no_access_to_a_stranger(services: Services, project: Project) -> None:
    """§3: access is checked before the `ETag`."""
    await project.fill(10)
    tag = (await project.api.request("GET", project.messages, query={"limit": 4})).headers["etag"]
    async with Api(services.a.url, "stranger") as stranger:
        response = await stranger.request(
            "GET", project.messages, query={"limit": 4}, headers={"If-None-Match": tag}
        )
    assert response.status_code == 403


@pytest.mark.parametrize("order", ["asc", "desc"])
async def test_a_page_of_large_messages_is_shorter_and_has_more(
    project: Project, order: str
) -> None:
    """§4: a page ends at about 1 MiB with `hasMore`; such a page is not cacheable."""
    for _ in range(3):
        body = {"messages": [{"message": "x" * 60_000} for _ in range(10)]}
        (await project.api.request("POST", f"{project.messages}/batch", body)).raise_for_status()
    seqs: list[int] = []
    query: dict[str, object] = {"limit": 500, "order": order}
    while True:
        response = await project.api.request("GET", project.messages, query=query)
        page = response.json()
        assert len(response.content) < 1_300_000
        assert "immutable" not in response.headers["cache-control"]
        seqs += [each["seq"] for each in page["messages"]]
        if not page["hasMore"]:
            break
        bound = "after_seq" if order == "asc" else "before_seq"
        query[bound] = page["nextAfterSeq"] if order == "asc" else seqs[-1]
    assert seqs == (list(range(1, 31)) if order == "asc" else list(range(30, 0, -1)))
