"""Shards of the projects' streams in Redis: one read can name all streams of a shard.

`SHARDS` is part of the stored data, not a setting: all processes must use the same number.
"""

from __future__ import annotations

import zlib

SHARDS = 256
"""With 5,000 projects, an XREAD names about 20 streams.

With 64 shards it named 80, and Redis and the service spent more time on the keys than on the
messages. More shards need more blocked connections in a process that reads in all of them.
"""


def shard_of(project_id: str) -> int:
    """Return the shard of a project's stream: 0 to SHARDS - 1."""
    return zlib.crc32(project_id.encode()) % SHARDS
