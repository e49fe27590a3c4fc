"""Shards: each holds many projects, whose streams one read can name together.

Every process must agree on `SHARDS`: it is part of the data, not a setting.
"""

from __future__ import annotations

import zlib

SHARDS = 256
"""Enough that one XREAD names few streams (5,000 projects: about 20 each).

With 64 and 5,000 projects, Redis and the service spent more on the eighty keys of each read than on
its messages. More shards mean more blocked connections for a process that reads in all of them.
"""


def shard_of(project_id: str) -> int:
    """The shard of a project's stream: 0 to SHARDS - 1."""
    return zlib.crc32(project_id.encode()) % SHARDS
