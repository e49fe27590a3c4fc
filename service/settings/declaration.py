"""What an operator can set: names, types, bounds and defaults of the settings. Declaration alone.

How a variable's text becomes a value, and which values are refused, is in `parsing.py`. No value
is shown where settings are printed: it may be a secret.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

_DAY_S = 86_400

Seconds = Annotated[float, Meta(gt=0, le=_DAY_S)]
SecondsOrOff = Annotated[float, Meta(ge=0, le=365 * _DAY_S)]
Milliseconds = Annotated[float, Meta(gt=0, le=_DAY_S * 1000)]
MillisecondsOrOff = Annotated[float, Meta(ge=0, le=_DAY_S * 1000)]
CountOrOff = Annotated[int, Meta(ge=0, le=10**9)]
BytesOrOff = Annotated[int, Meta(ge=0, le=2**62)]
TextBytes = Annotated[int, Meta(ge=256, le=64 * 1024)]
Few = Annotated[int, Meta(gt=0, le=1000)]

SERVICE_NEEDS = ("DATABASE_URL", "REDIS_URL", "SEQSTREAM_HMAC_SECRETS", "SEQSTREAM_TOKEN_SECRETS")
"""The variables that `serve` needs."""
WORKER_NEEDS = ("DATABASE_URL", "REDIS_URL")
"""The variables that `worker`, `tail` and `doctor` need: they verify no caller."""
SIGNING_SECRETS = ("SEQSTREAM_HMAC_SECRETS", "SEQSTREAM_TOKEN_SECRETS")
"""Read only by a command that needs them: the settings of all others do not hold them."""
SERVICE_SECRETS = (*SIGNING_SECRETS, "SEQSTREAM_ASSISTANT_KEY")
"""The secrets that are removed from a worker's environment."""
MIGRATE_NEEDS = ("DATABASE_URL",)
"""The variables that `migrate` needs."""

_BURST_FACTOR = 4
_SECRETS = frozenset({"hmac_secrets", "token_secrets", "assistant_key"})
_URLS = frozenset({"database_url", "redis_url", "assistant_url"})


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that an operator can set. Names end in their unit; 0 turns a limit off.

    An unset variable that the caller of `load` does not need is empty (`""` or `()`).
    """

    database_url: str = ""
    redis_url: str = ""
    # The first secret signs, all of them verify.
    hmac_secrets: tuple[str, ...] = ()
    token_secrets: tuple[str, ...] = ()

    heartbeat_s: Seconds = 15.0
    slow_client_s: Seconds = 30.0
    open_timeout_s: Seconds = 2.0
    retry_ms: Annotated[int, Meta(gt=0, le=_DAY_S * 1000)] = 2000  # clients accept only digits
    # The pause between two writes to a project's connections: the least one, and the longest one
    # when they are many.
    coalesce_ms: MillisecondsOrOff = 5.0
    coalesce_most_ms: MillisecondsOrOff = 100.0
    max_stream_age_s: SecondsOrOff = 0.0
    heads_poll_ms: Milliseconds = 500.0
    presence_grace_s: SecondsOrOff = 10.0

    max_streams_per_user: CountOrOff = 10
    max_streams_per_project: CountOrOff = 5000
    max_streams: CountOrOff = 20_000
    posts_per_second: CountOrOff = 50
    max_reads_per_user: CountOrOff = 16
    max_pending_bytes: CountOrOff = 64 * 1024 * 1024
    # Of a message that a client posts, and of an answer. Lower it for clients that read lines into
    # a fixed buffer.
    max_text_bytes: TextBytes = 64 * 1024
    # From the arrival of a post until it is answered that the store is not available.
    post_timeout_s: Seconds = 5.0
    # Unfinished builds of a project, and of a user in all projects.
    max_builds_per_project: CountOrOff = 1000
    max_builds_per_user: CountOrOff = 1000

    database_pool_size: Few = 8
    committers: Few = 2

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "console"] = "json"
    cors_origins: tuple[str, ...] = ()
    docs_page: bool = True

    # The command's words, split as by a shell; empty: the built-in example build.
    build_command: tuple[str, ...] = ()
    # Names of further variables that the command gets from the worker's environment.
    build_env: tuple[str, ...] = ()
    build_memory_bytes: BytesOrOff = 0
    build_file_bytes: BytesOrOff = 0
    build_processes: CountOrOff = 0
    build_open_files: CountOrOff = 0
    # Whether programs such as sudo may give a build privileges that its worker lacks.
    build_new_privileges: bool = False
    build_lease_s: Seconds = 30.0
    build_timeout_s: Seconds = 3600.0
    worker_concurrency: Few = 2
    worker_grace_s: SecondsOrOff = 4.0

    # None: the built-in assistant, which needs no network.
    assistant_url: str | None = None
    assistant_model: str | None = None
    assistant_key: str | None = None
    assistant_timeout_s: Seconds = 120.0
    answer_lease_s: Seconds = 10.0
    # How long an assistant outside may be silent.
    outside_answer_lease_s: Seconds = 30.0
    # Concurrent answers in this process. Those of assistants outside are counted over all
    # processes: of a project, and the last of a worker.
    max_answers_per_user: CountOrOff = 8
    max_answers_per_project: CountOrOff = 32
    max_answers: CountOrOff = 64

    @property
    def posts_burst(self) -> int:
        """How many posts a user may send to a project at once; 0 is no limit."""
        return self.posts_per_second * _BURST_FACTOR

    def __rich_repr__(self) -> list[tuple[str, Any]]:  # the one of msgspec.Struct prints secrets
        return [(name, self._shown(name)) for name in self.__struct_fields__]

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={value!r}" for name, value in self.__rich_repr__())
        return f"Settings({fields})"

    def _shown(self, name: str) -> object:
        value = getattr(self, name)
        if name in _SECRETS:
            return "[hidden]" if value else value
        if name in _URLS and value:
            return without_password(value)
        return value


def without_password(url: str) -> str:
    """Return the URL without its user, password and query, for logs and messages."""
    # Up to the last "@": a password may hold an unencoded "@", "/" or "?".
    return re.sub(r"\?.*", "", re.sub(r"\A([a-z+]*://).*@", r"\1***@", url, flags=re.S), flags=re.S)


def variable_of(field: str) -> str:
    """Return the environment variable of a field: `heartbeat_s` is SEQSTREAM_HEARTBEAT_SECONDS."""
    if field in ("database_url", "redis_url"):
        return field.upper()
    name = re.sub(r"_s\Z", "_seconds", field)
    return f"SEQSTREAM_{name.upper()}"
