"""Projects and their members (docs/protocol.md §3, membership)."""

from __future__ import annotations

import pytest

from streams.log.database import Database
from streams.log.projects import Projects
from streams.model.errors import InvalidInput, ProjectExists, ProjectNotFound


@pytest.fixture
def projects(database: Database) -> Projects:
    """The tables of projects and members."""
    return Projects(database)


async def test_a_repeated_create_returns_the_first_project(projects: Projects) -> None:
    """§4: the same id by the same owner is a repeat."""
    created, is_new = await projects.create("proj-new", "anna", "First")
    again, is_new_again = await projects.create("proj-new", "anna", "Second")
    assert (is_new, is_new_again) == (True, False)
    assert again == created
    assert (created.name, created.owner_id, created.head) == ("First", "anna", 0)


async def test_another_owner_cannot_take_an_id(projects: Projects) -> None:
    """§4: an id has one owner."""
    await projects.create("proj-taken", "anna", "x")
    with pytest.raises(ProjectExists):
        await projects.create("proj-taken", "bert", "x")


async def test_ids_keep_their_case(projects: Projects) -> None:
    """§1: ids that differ by case are different projects."""
    await projects.create("proj-case", "anna", "x")
    _, is_new = await projects.create("Proj-Case", "bert", "x")
    assert is_new


async def test_an_invalid_id_is_refused_by_field(projects: Projects) -> None:
    """§4: details name the field."""
    with pytest.raises(InvalidInput) as refused:
        await projects.create("no/slash", "anna", "x")
    assert refused.value.field == "id"


async def test_reading_a_missing_project_fails(projects: Projects) -> None:
    """It raises `ProjectNotFound`."""
    with pytest.raises(ProjectNotFound):
        await projects.get("proj-none")


async def _is_member(projects: Projects, project_id: str, user_id: str) -> bool:
    return bool(await projects.which_are_members([(project_id, user_id)]))


async def test_the_owner_is_a_member(projects: Projects) -> None:
    """§3: members are the owner and the collaborators."""
    await projects.create("proj-own", "anna", "x")
    assert await _is_member(projects, "proj-own", "anna")


async def test_a_collaborator_is_a_member_until_removed(projects: Projects) -> None:
    """§3: members are the owner and the collaborators."""
    await projects.create("proj-collab", "anna", "x")
    await projects.add_member("proj-collab", "bert")
    await projects.add_member("proj-collab", "bert")
    assert await _is_member(projects, "proj-collab", "bert")
    assert await projects.members("proj-collab") == ["bert"]
    assert await projects.remove_member("proj-collab", "bert")
    assert not await projects.remove_member("proj-collab", "bert")
    assert not await _is_member(projects, "proj-collab", "bert")


async def test_members_are_read_in_pages(projects: Projects) -> None:
    """§4: in byte order of user ids, after a given id."""
    await projects.create("proj-pages", "anna", "x")
    for user_id in ("b", "B", "é", "a:b", "a"):
        await projects.add_member("proj-pages", user_id)
    assert await projects.members("proj-pages") == ["B", "a", "a:b", "b", "é"]
    assert await projects.members("proj-pages", after="a", limit=2) == ["a:b", "b"]
    assert await projects.members("proj-pages", after="é") == []


async def test_a_missing_project_has_no_members(projects: Projects) -> None:
    """§3: it cannot be distinguished from a project of others."""
    await projects.create("proj-closed", "anna", "x")
    assert not await _is_member(projects, "proj-closed", "eve")
    assert not await _is_member(projects, "proj-no", "eve")


async def test_user_ids_are_compared_byte_by_byte(projects: Projects) -> None:
    """§3: ids that differ by case are different users."""
    await projects.create("proj-bytes", "anna", "x")
    assert not await _is_member(projects, "proj-bytes", "Anna")


async def test_many_memberships_are_checked_in_one_query(projects: Projects) -> None:
    """§3: memberships of all open streams are rechecked together."""
    await projects.create("proj-many", "anna", "x")
    await projects.add_member("proj-many", "bert")
    pairs = [("proj-many", "anna"), ("proj-many", "bert"), ("proj-many", "eve"), ("no", "anna")]
    assert await projects.which_are_members(pairs) == {
        ("proj-many", "anna"), ("proj-many", "bert"),
    }  # fmt: skip
