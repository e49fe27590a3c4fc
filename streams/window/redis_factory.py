"""The only place that makes Redis clients: one server, a cluster, or behind Sentinels.

It reads the URL and sets the clients' options. What is sent over them is not its matter.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote, urlsplit

import msgspec
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff

from streams.window.redis_internals import close_sentinels

CALLS_AT_ONCE = 16
"""Calls in progress at one server; others wait for their turn."""
MOST_KEPT = 2
"""How many connections are kept for scripts."""
# The driver's pools of a cluster and of Sentinels raise an error when they are empty, so they are a
# little larger than is ever used.
_SPARE = 8
_MAX_CONNECTIONS = CALLS_AT_ONCE + MOST_KEPT + _SPARE
_CONNECT_TIMEOUT_S = 1.0
_SENTINEL_PORT = 26379

# Replies as the server sends them: what redis-py makes of them differs by protocol version.
_RAW_REPLIES = ("XREAD", "XRANGE", "XREVRANGE", "XADD")


class SentinelAddress(msgspec.Struct, frozen=True):
    """Where the Sentinels are, and which service and database they lead to."""

    sentinels: list[tuple[str, int]]
    service: str
    database: int
    username: str | None
    password: str | None


def parse_sentinel_url(url: str) -> SentinelAddress:
    """Read `redis+sentinel://[user:password@]host:port[,host:port...]/service[/db]`."""
    parts = urlsplit(url)
    credentials, _, hosts = parts.netloc.rpartition("@")
    user, _, password = credentials.partition(":")
    service, _, database = parts.path.strip("/").partition("/")
    sentinels = []
    for host in hosts.split(","):
        name, _, port = host.partition(":")
        sentinels.append((name, int(port or _SENTINEL_PORT)))
    return SentinelAddress(
        sentinels, service, int(database or 0), unquote(user) or None, unquote(password) or None
    )


class RedisFactory:
    """Makes the clients of one Redis, all with the same settings."""

    def __init__(self, url: str, timeout_s: float) -> None:
        """`timeout_s` is how long a call waits for a free connection of one server's pool."""
        self._url = url
        self._timeout_s = timeout_s
        scheme = urlsplit(url).scheme
        self.is_cluster = scheme == "redis+cluster"
        self._settings: dict[str, Any] = {
            # Our timeouts are around each call. With one of its own the driver makes a task for
            # every send, aborts every quiet read, and in Python 3.11 its `wait_for` may swallow a
            # cancellation, so that a read goes on to the end of its block.
            "socket_timeout": None,
            "socket_connect_timeout": _CONNECT_TIMEOUT_S,
            # The callers decide what happens after a failure, not the driver.
            "retry": Retry(NoBackoff(), 0),
            "protocol": 2,
        }
        if scheme != "unix":
            self._settings["socket_keepalive"] = True
        self._sentinel_address: SentinelAddress | None = None
        self._sentinel: Sentinel | None = None
        if scheme == "redis+sentinel":
            # One for all clients: a client does not close its connections to Sentinels, and a lane
            # makes a client each time that it connects.
            self._sentinel_address = parse_sentinel_url(url)
            self._sentinel = Sentinel(  # type: ignore[no-untyped-call]
                self._sentinel_address.sentinels, sentinel_kwargs=dict(self._settings)
            )

    def shared_client(self) -> Any:
        """Return a client with as many connections as there are calls at once."""
        if self.is_cluster:
            return _with_raw_replies(
                RedisCluster.from_url(
                    "redis" + self._url.removeprefix("redis+cluster"),
                    max_connections=_MAX_CONNECTIONS,
                    **self._settings,
                )
            )
        return self._client(_MAX_CONNECTIONS)

    def single_client(self, address: tuple[str, int] | None) -> Any:
        """Return a client for one connection, on a cluster to the node at `address`."""
        if address is None:
            return self._client(1)
        host, port = address
        parts = urlsplit(self._url)
        return _with_raw_replies(
            Redis(
                host=host,
                port=port,
                username=unquote(parts.username) if parts.username else None,
                password=unquote(parts.password) if parts.password else None,
                **self._settings,
            )
        )

    def _client(self, connections: int) -> Any:
        """Return a client of the only server, or of the master that the Sentinels name."""
        if self._sentinel is None or self._sentinel_address is None:
            pool = BlockingConnectionPool.from_url(
                self._url, max_connections=connections, timeout=self._timeout_s, **self._settings
            )
            return _with_raw_replies(Redis(connection_pool=pool))
        address = self._sentinel_address
        master = self._sentinel.master_for(
            address.service,
            redis_class=Redis,
            db=address.database,
            username=address.username,
            password=address.password,
            max_connections=_MAX_CONNECTIONS,
            **self._settings,
        )
        return _with_raw_replies(master)

    async def close(self) -> None:
        """Close the connections to Sentinels. The clients are closed by their owners."""
        if self._sentinel is not None:
            await close_sentinels(self._sentinel)


def _with_raw_replies(client: Any) -> Any:
    for command in _RAW_REPLIES:
        client.set_response_callback(command, _unchanged)
    return client


def _unchanged(reply: Any, **_: Any) -> Any:
    return reply
