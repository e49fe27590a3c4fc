"""Names of Redis keys. No other module writes one.

The shard is the hash tag, so that one XREAD may name many streams of a shard on a cluster.
"""

from __future__ import annotations

from streams.model.shards import shard_of

_PREFIX = "seqstream"


def stream(project_id: str) -> str:
    """The Redis Stream that holds a project's window."""
    return f"{_PREFIX}:{{{shard_of(project_id):03d}}}:stream:{project_id}"


def project_of(stream_key: bytes) -> str:
    """The project whose stream has this key."""
    return stream_key.decode().split(":", 3)[3]


def signals(shard: int) -> str:
    """A short stream of a shard: ephemeral events and notices, for all processes."""
    return f"{_PREFIX}:{{{shard:03d}}}:signals"


def wake(shard: int, process_id: str) -> str:
    """A stream of one entry by which a process wakes its own lane of a shard."""
    return f"{_PREFIX}:{{{shard:03d}}}:wake:{process_id}"


def probe(shard: int, process_id: str) -> str:
    """A key that a process writes to test whether a shard's server takes writes."""
    return f"{_PREFIX}:{{{shard:03d}}}:probe:{process_id}"


def post_bucket(project_id: str, user_id: str) -> str:
    """Token bucket of a user's posts in a project."""
    return f"{_PREFIX}:{{{shard_of(project_id):03d}}}:posts:{project_id}:{user_id}"


def build_revisions(project_id: str) -> str:
    """The highest revision of each build that was appended to a project's stream."""
    return f"{_PREFIX}:{{{shard_of(project_id):03d}}}:builds:{project_id}"


def build_news() -> str:
    """A short stream that announces new and cancelled builds to workers."""
    return f"{_PREFIX}:{{builds}}:news"


def typing(project_id: str) -> str:
    """Users who are typing in a project, scored by when that expires."""
    return f"{_PREFIX}:{{{shard_of(project_id):03d}}}:typing:{project_id}"


def typing_limit(project_id: str, user_id: str) -> str:
    """Exists while a user may not start typing again."""
    return f"{_PREFIX}:{{{shard_of(project_id):03d}}}:typist:{project_id}:{user_id}"


def alive(shard: int) -> str:
    """The processes with users in a shard's projects, and until when they count as alive."""
    return f"{_PREFIX}:{{{shard:03d}}}:alive"


def presence(project_id: str) -> str:
    """Who is online in a project: one field per user and process, renewed while it lives."""
    return f"{_PREFIX}:{{{shard_of(project_id):03d}}}:presence:{project_id}"
