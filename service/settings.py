"""The settings of a process, read once from a mapping of environment variables and checked.

Parsing and checking alone: nothing here reads `os.environ`, opens a connection, or fills in a
secret of its own. A value is never shown in an error: it may be a secret in the wrong variable.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, get_args, get_origin
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

_DAY_S = 86_400

Seconds = Annotated[float, Meta(gt=0, le=_DAY_S)]
SecondsOrOff = Annotated[float, Meta(ge=0, le=365 * _DAY_S)]
Milliseconds = Annotated[float, Meta(gt=0, le=_DAY_S * 1000)]
MillisecondsOrOff = Annotated[float, Meta(ge=0, le=_DAY_S * 1000)]
CountOrOff = Annotated[int, Meta(ge=0, le=10**9)]
BytesOrOff = Annotated[int, Meta(ge=0, le=2**62)]
Few = Annotated[int, Meta(gt=0, le=1000)]

REDIS_SCHEMES = ("redis", "rediss", "unix", "redis+cluster", "redis+sentinel")
POSTGRES_SCHEMES = ("postgresql", "postgres")
MIN_SECRET_CHARACTERS = 32
MIN_DIFFERENT_CHARACTERS = 8

SERVICE_NEEDS = ("DATABASE_URL", "REDIS_URL", "SEQSTREAM_HMAC_SECRETS", "SEQSTREAM_TOKEN_SECRETS")
"""What `serve` cannot do without."""
WORKER_NEEDS = ("DATABASE_URL", "REDIS_URL")
"""What `worker`, `tail` and `doctor` cannot do without: they verify no caller."""
SIGNING_SECRETS = ("SEQSTREAM_HMAC_SECRETS", "SEQSTREAM_TOKEN_SECRETS")
"""Not read, nor held by the settings, where they are not needed."""
SERVICE_SECRETS = (*SIGNING_SECRETS, "SEQSTREAM_ASSISTANT_KEY")
"""What a worker never takes."""
MIGRATE_NEEDS = ("DATABASE_URL",)
"""What `migrate` cannot do without."""

_BURST_FACTOR = 4
_SECRETS = frozenset({"hmac_secrets", "token_secrets", "assistant_key"})
_URLS = frozenset({"database_url", "redis_url", "assistant_url"})


class SettingsError(Exception):
    """A setting is missing or bad; the text is one line that begins with the variable's name."""

    def __init__(self, variable: str, problem: str) -> None:
        super().__init__(f"{variable}: {problem}")
        self.variable = variable


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that an operator can set. Names end in their unit; 0 turns a limit off.

    A setting that the caller of `load` did not need and that is unset is empty (`""` or `()`).
    """

    database_url: str = ""
    redis_url: str = ""
    # The first one signs, any of them verifies.
    hmac_secrets: tuple[str, ...] = ()
    token_secrets: tuple[str, ...] = ()

    heartbeat_s: Seconds = 15.0
    slow_client_s: Seconds = 30.0
    open_timeout_s: Seconds = 2.0
    retry_ms: Annotated[int, Meta(gt=0, le=_DAY_S * 1000)] = 2000  # a client reads digits alone
    # Between two writes to a project's connections: at least, and at most when they are many.
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
    # From a post's request being there until it is told that the store did not answer.
    post_timeout_s: Seconds = 5.0
    # Unfinished builds: in a project, and of a user over all projects.
    max_builds_per_project: CountOrOff = 1000
    max_builds_per_user: CountOrOff = 1000

    database_pool_size: Few = 8
    committers: Few = 2

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "console"] = "json"
    cors_origins: tuple[str, ...] = ()
    docs_page: bool = True

    # The words of the command, split as a shell would; empty: the built-in example build.
    build_command: tuple[str, ...] = ()
    # Names of more variables that the command gets from the worker's environment.
    build_env: tuple[str, ...] = ()
    build_memory_bytes: BytesOrOff = 0
    build_file_bytes: BytesOrOff = 0
    build_processes: CountOrOff = 0
    build_open_files: CountOrOff = 0
    # Whether programs such as sudo may give a build rights that its worker lacks.
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
    # Under way at once in this process.
    max_answers_per_user: CountOrOff = 8
    max_answers_per_project: CountOrOff = 32
    max_answers: CountOrOff = 64

    @property
    def posts_burst(self) -> int:
        """How many posts a user may send in a project at once; 0 when there is no limit."""
        return self.posts_per_second * _BURST_FACTOR

    def __rich_repr__(self) -> list[tuple[str, Any]]:  # a struct's own would print the secrets
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
    # Up to the LAST "@": a password may hold an unencoded "@", "/" or "?".
    return re.sub(r"\?.*", "", re.sub(r"\A([a-z+]*://).*@", r"\1***@", url, flags=re.S), flags=re.S)


def load(environ: Mapping[str, str], *, needs: Sequence[str] = SERVICE_NEEDS) -> Settings:
    """Read the settings. A variable that is set but empty counts as unset.

    `needs` names the variables that must be set; a process that verifies no caller passes
    `WORKER_NEEDS` or `MIGRATE_NEEDS`.

    Raises:
        SettingsError: the first variable that is missing or bad.
    """
    for variable in needs:
        if not environ.get(variable, "").strip():
            raise SettingsError(variable, "is not set")
    values: dict[str, object] = {}
    for field in msgspec.structs.fields(Settings):
        variable = variable_of(field.name)
        raw = environ.get(variable, "").strip()
        # Only those that sign and verify are trusted with what signs.
        if raw and (variable not in SIGNING_SECRETS or variable in needs):
            values[field.name] = _parse(variable, raw, field.name, field.type)
    settings = Settings(**values)  # type: ignore[arg-type]  # _parse checked each by its type
    _check_together(settings)
    return settings


def variable_of(field: str) -> str:
    """Name the environment variable of a field: `heartbeat_s` is SEQSTREAM_HEARTBEAT_SECONDS."""
    if field in ("database_url", "redis_url"):
        return field.upper()
    name = re.sub(r"_s\Z", "_seconds", field)
    return f"SEQSTREAM_{name.upper()}"


def _parse(variable: str, raw: str, field: str, kind: Any) -> object:
    if special := _PARSERS.get(field):
        return special(variable, raw)
    if get_origin(kind) is Literal:
        choices = [str(choice) for choice in get_args(kind)]
        if raw.lower() not in choices:
            raise SettingsError(variable, f"must be one of {', '.join(choices)}")
        return raw.lower()
    try:
        value: object = msgspec.convert(raw, kind, strict=False)
    except msgspec.ValidationError as error:
        raise SettingsError(variable, _reworded(str(error))) from None
    # Not a number fails every comparison, so a range check alone could let it through.
    if isinstance(value, float) and not math.isfinite(value):
        raise SettingsError(variable, "must be a number")
    return value


def _reworded(complaint: str) -> str:
    limit = re.match(r"Expected `(?:float|int)` (>=|<=|>|<) ([\d.]+)", complaint)
    if limit:
        return f"must be {limit[1]} {float(limit[2]):g}"
    if complaint == "Number out of range":
        return "is too large"
    wanted = re.match(r"Expected `(\w+)", complaint)
    words = {"int": "a whole number", "float": "a number", "bool": "true or false"}
    return f"must be {words.get(wanted[1], 'text') if wanted else 'another value'}"


def _url(*schemes: str) -> Callable[[str, str], str]:
    def parse(variable: str, raw: str) -> str:
        scheme, separator, rest = raw.partition("://")
        if not separator or scheme not in schemes:
            raise SettingsError(variable, f"must begin with one of {', '.join(schemes)} and ://")
        if any(character.isspace() or not character.isprintable() for character in raw):
            raise SettingsError(variable, "must hold no white space or control characters")
        # Postgres alone can do without a host: its default is the local socket.
        if not rest.strip("/") and scheme not in POSTGRES_SCHEMES:
            raise SettingsError(variable, "names no server")
        try:
            parts = urlsplit(raw)
            if "," not in parts.netloc:  # a list of hosts has a port each; its client reads it
                _ = parts.port
        except ValueError:
            raise SettingsError(variable, "is not a URL") from None
        return raw

    return parse


def _secrets(variable: str, raw: str) -> tuple[str, ...]:
    secrets = tuple(item.strip() for item in raw.split(","))
    for place, secret in enumerate(secrets, start=1):
        problem = _weakness(secret)
        if problem is None and (earlier := secrets.index(secret) + 1) < place:
            problem = f"is the same as secret {earlier}"
        if problem is not None:
            raise SettingsError(variable, f"secret {place} of {len(secrets)} {problem}")
    return secrets


def _weakness(secret: str) -> str | None:
    """Say why a secret is obviously weak. What looks random may still be no secret."""
    length = len(secret)
    if length < MIN_SECRET_CHARACTERS:
        return f"is shorter than {MIN_SECRET_CHARACTERS} characters"
    if len(set(secret)) < MIN_DIFFERENT_CHARACTERS:
        return f"has fewer than {MIN_DIFFERENT_CHARACTERS} different characters"
    # A longer pattern would be long enough by itself.
    for period in range(1, min(MIN_SECRET_CHARACTERS, length // 2 + 1)):
        if secret[period:] == secret[:-period]:
            return "repeats one pattern"
    return None


def _origins(variable: str, raw: str) -> tuple[str, ...]:
    origins = tuple(item.strip() for item in raw.split(",") if item.strip())
    for origin in origins:
        # "*" is refused too: the token travels in a cookie, and any site could then read streams.
        if not re.fullmatch(r"https?://[A-Za-z0-9.\-\[\]:]+", origin):
            raise SettingsError(
                variable, "must list origins like https://app.example, without a path and without *"
            )
    return origins


def _command(variable: str, raw: str) -> tuple[str, ...]:
    try:
        words = tuple(shlex.split(raw))
    except ValueError:
        raise SettingsError(variable, "has a quotation mark without its pair") from None
    if not words or not words[0]:
        raise SettingsError(variable, "names no command")
    return words


def _environment_names(variable: str, raw: str) -> tuple[str, ...]:
    names = tuple(item.strip() for item in raw.split(",") if item.strip())
    for name in names:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise SettingsError(variable, "must list names of environment variables")
        # PGPASSWORD and its like stand in for parts of DATABASE_URL.
        if name.startswith(("SEQSTREAM_", "PG")) or name in ("DATABASE_URL", "REDIS_URL"):
            raise SettingsError(variable, f"must not name {name}: it may hold a secret of ours")
    return names


_PARSERS: Mapping[str, Callable[[str, str], object]] = {
    "database_url": _url(*POSTGRES_SCHEMES),
    "redis_url": _url(*REDIS_SCHEMES),
    "assistant_url": _url("http", "https"),
    "hmac_secrets": _secrets,
    "token_secrets": _secrets,
    "cors_origins": _origins,
    "build_command": _command,
    "build_env": _environment_names,
}


def _check_together(settings: Settings) -> None:
    # A committer holds a connection while it commits; with none left, every read would starve.
    if settings.committers >= settings.database_pool_size:
        raise SettingsError(
            variable_of("database_pool_size"),
            f"must be greater than {variable_of('committers')} ({settings.committers})",
        )
    # Else who may sign tokens could sign requests, for any user.
    for place, secret in enumerate(settings.token_secrets, start=1):
        if secret in settings.hmac_secrets:
            raise SettingsError(
                variable_of("token_secrets"),
                f"secret {place} of {len(settings.token_secrets)} is also in"
                f" {variable_of('hmac_secrets')}",
            )
    if settings.assistant_url and not settings.assistant_model:
        raise SettingsError(
            variable_of("assistant_model"), f"is needed with {variable_of('assistant_url')}"
        )
