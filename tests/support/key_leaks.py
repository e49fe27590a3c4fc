"""The keys that the project may leave in Redis: those of `streams/window/keys.py`, with an expiry.

The patterns are written out here, so that a new kind of key fails the tests until it is added.
"""

from __future__ import annotations

import re

import redis

_KNOWN = re.compile(
    r"seqstream:\{\d{3}\}:(stream|typing|presence|builds):[A-Za-z0-9_-]{1,64}"
    r"|seqstream:\{\d{3}\}:(posts|typist):[A-Za-z0-9_-]{1,64}:\S{1,128}"
    r"|seqstream:\{\d{3}\}:(signals|alive)"
    r"|seqstream:\{\d{3}\}:(wake|probe):[0-9a-f]+"
    r"|seqstream:\{builds\}:news"
)


def leaked_keys(redis_url: str) -> list[str]:
    """Return one line for each key that is unknown or has no expiry."""
    wrong = []
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        for key in client.scan_iter(count=1000):
            if not _KNOWN.fullmatch(key):
                wrong.append(f"{key}: not a documented key")
            elif client.ttl(key) == -1:
                wrong.append(f"{key}: no expiry")
    return wrong
