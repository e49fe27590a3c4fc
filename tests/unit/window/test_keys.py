"""The names of Redis keys: which exist, and which live on the same shard."""

from __future__ import annotations

import re

import pytest

from streams.model.shards import SHARDS, shard_of
from streams.window import keys

PROJECTS = ["p", "P", "a" * 64, "with_under-score", "0", "-"]


def _hash_tag(key: str) -> str:
    found = re.search(r"\{([^}]+)\}", key)
    assert found is not None
    return found[1]


@pytest.mark.parametrize("project_id", PROJECTS)
def test_the_project_is_read_back_from_its_stream(project_id: str) -> None:
    """A lane finds the project of an entry by its key."""
    assert keys.project_of(keys.stream(project_id).encode()) == project_id


@pytest.mark.parametrize("project_id", PROJECTS)
def test_one_read_can_name_all_keys_of_a_shard(project_id: str) -> None:
    """The shard is the hash tag of every key that one XREAD names, on Redis Cluster too."""
    shard = shard_of(project_id)
    named = [keys.stream(project_id), keys.signals(shard), keys.wake(shard, "process")]
    assert {_hash_tag(key) for key in named} == {f"{shard:03d}"}


def test_projects_spread_over_the_shards() -> None:
    """Every shard has its lane: many projects must not crowd on a few."""
    counts = [0] * SHARDS
    for number in range(25_600):
        counts[shard_of(f"project-{number}")] += 1
    assert min(counts) > 50
    assert max(counts) < 200


def test_a_projects_shard_never_changes() -> None:
    """The shard is part of the data: another number would orphan every stream there is."""
    assert {project: shard_of(project) for project in ("p", "demo", "a" * 64)} == {
        "p": 177, "demo": 160, "a" * 64: 85,
    }  # fmt: skip


def test_two_projects_never_share_a_key() -> None:
    """Ids keep their case and may hold `_` and `-`, but no `:` that could blur two names."""
    assert keys.stream("a") != keys.stream("A")
    assert keys.post_bucket("a-b", "c") != keys.post_bucket("a", "b-c")
