"""Reads settings from a mapping of environment variables, and checks them.

Nothing here reads `os.environ`, opens a connection, or makes a default secret. An error never
shows a value: it may be a secret in the wrong variable.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args, get_origin
from urllib.parse import urlsplit

import msgspec

from service.settings.declaration import SERVICE_NEEDS, SIGNING_SECRETS, Settings, variable_of

REDIS_SCHEMES = ("redis", "rediss", "unix", "redis+cluster", "redis+sentinel")
POSTGRES_SCHEMES = ("postgresql", "postgres")
MIN_SECRET_CHARACTERS = 32
MIN_DIFFERENT_CHARACTERS = 8


class SettingsError(Exception):
    """A setting is missing or invalid; the text is one line that begins with the variable."""

    def __init__(self, variable: str, problem: str) -> None:
        super().__init__(f"{variable}: {problem}")
        self.variable = variable


def load(environ: Mapping[str, str], *, needs: Sequence[str] = SERVICE_NEEDS) -> Settings:
    """Read the settings. A variable that is set but empty counts as unset.

    `needs` names the variables that must be set; a process that verifies no caller passes
    `WORKER_NEEDS` or `MIGRATE_NEEDS`.

    Raises:
        SettingsError: the first variable that is missing or invalid.
    """
    for variable in needs:
        if not environ.get(variable, "").strip():
            raise SettingsError(variable, "is not set")
    values: dict[str, object] = {}
    for field in msgspec.structs.fields(Settings):
        variable = variable_of(field.name)
        raw = environ.get(variable, "").strip()
        # Signing secrets are kept only by a process that signs or verifies.
        if raw and (variable not in SIGNING_SECRETS or variable in needs):
            values[field.name] = _parse(variable, raw, field.name, field.type)
    settings = Settings(**values)  # type: ignore[arg-type]  # _parse checked each by its type
    _check_together(settings)
    return settings


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
        raise SettingsError(variable, _problem_of(str(error))) from None
    # NaN fails every comparison, so a check of the range alone could accept it.
    if isinstance(value, float) and not math.isfinite(value):
        raise SettingsError(variable, "must be a number")
    return value


def _problem_of(complaint: str) -> str:
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
        # Only Postgres works without a host: its default is the local socket.
        if not rest.strip("/") and scheme not in POSTGRES_SCHEMES:
            raise SettingsError(variable, "names no server")
        try:
            parts = urlsplit(raw)
            if "," not in parts.netloc:  # a list of hosts has a port each; the driver parses it
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
    """Say why a secret is obviously weak; None does not prove that it is a good one."""
    length = len(secret)
    if length < MIN_SECRET_CHARACTERS:
        return f"is shorter than {MIN_SECRET_CHARACTERS} characters"
    if len(set(secret)) < MIN_DIFFERENT_CHARACTERS:
        return f"has fewer than {MIN_DIFFERENT_CHARACTERS} different characters"
    # A longer pattern is long enough by itself.
    for period in range(1, min(MIN_SECRET_CHARACTERS, length // 2 + 1)):
        if secret[period:] == secret[:-period]:
            return "repeats one pattern"
    return None


def _origins(variable: str, raw: str) -> tuple[str, ...]:
    origins = tuple(item.strip() for item in raw.split(",") if item.strip())
    for origin in origins:
        # "*" is refused too: the token may be in a cookie, so any site could read streams.
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
        # PGPASSWORD and other PG variables replace parts of DATABASE_URL.
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
    # A committer holds a connection while it commits; reads need at least one more.
    if settings.committers >= settings.database_pool_size:
        raise SettingsError(
            variable_of("database_pool_size"),
            f"must be greater than {variable_of('committers')} ({settings.committers})",
        )
    # Otherwise a holder of the token secret could sign requests for any user.
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
