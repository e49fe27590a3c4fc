"""Settings (docs/protocol.md §7), with the limits of §6 and the secrets of §3."""

from __future__ import annotations

import io
import re
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from service.settings import (
    MIGRATE_NEEDS,
    SIGNING_SECRETS,
    WORKER_NEEDS,
    Settings,
    SettingsError,
    load,
    variable_of,
    without_password,
)

_OPERATIONS = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()

HMAC = "hmac-secret-hmac-secret-hmac-secret-1"
TOKEN = "token-secret-token-secret-token-secret-2"
OTHER = "another-secret-another-secret-another-3"
GOOD = {
    "DATABASE_URL": "postgresql://app:pa55word@db:5432/app",
    "REDIS_URL": "redis://:r3dis@cache:6379/0",
    "SEQSTREAM_HMAC_SECRETS": HMAC,
    "SEQSTREAM_TOKEN_SECRETS": TOKEN,
}


def refused(**changed: str) -> str:
    with pytest.raises(SettingsError) as caught:
        load(GOOD | changed)
    return str(caught.value)


def test_defaults() -> None:
    """§6 and §7: the values when only the four required variables are set."""
    assert load(GOOD) == Settings(
        database_url=GOOD["DATABASE_URL"],
        redis_url=GOOD["REDIS_URL"],
        hmac_secrets=(HMAC,),
        token_secrets=(TOKEN,),
        heartbeat_s=15,
        slow_client_s=30,
        retry_ms=2000,
        coalesce_ms=5,
        coalesce_most_ms=100,
        max_stream_age_s=0,
        heads_poll_ms=500,
        max_streams_per_user=10,
        max_streams_per_project=5000,
        max_streams=20_000,
        posts_per_second=50,
        database_pool_size=8,
        committers=2,
        log_level="info",
        log_format="json",
        cors_origins=(),
        docs_page=True,
        build_command=(),
        build_lease_s=30,
        build_timeout_s=3600,
        worker_concurrency=2,
        assistant_url=None,
        assistant_model=None,
        assistant_key=None,
        assistant_timeout_s=120,
    )


@pytest.mark.parametrize(
    "variable, raw, field, value",
    [
        ("SEQSTREAM_HEARTBEAT_SECONDS", "0.5", "heartbeat_s", 0.5),
        ("SEQSTREAM_SLOW_CLIENT_SECONDS", "5", "slow_client_s", 5.0),
        ("SEQSTREAM_RETRY_MS", "100", "retry_ms", 100.0),
        ("SEQSTREAM_COALESCE_MS", "0", "coalesce_ms", 0.0),
        ("SEQSTREAM_COALESCE_MOST_MS", "20", "coalesce_most_ms", 20.0),
        ("SEQSTREAM_MAX_STREAM_AGE_SECONDS", "3600", "max_stream_age_s", 3600.0),
        ("SEQSTREAM_HEADS_POLL_MS", "250", "heads_poll_ms", 250.0),
        ("SEQSTREAM_MAX_STREAMS_PER_USER", "0", "max_streams_per_user", 0),
        ("SEQSTREAM_MAX_STREAMS_PER_PROJECT", "7", "max_streams_per_project", 7),
        ("SEQSTREAM_MAX_STREAMS", "9", "max_streams", 9),
        ("SEQSTREAM_POSTS_PER_SECOND", "0", "posts_per_second", 0),
        ("SEQSTREAM_DATABASE_POOL_SIZE", "3", "database_pool_size", 3),
        ("SEQSTREAM_COMMITTERS", " 1 ", "committers", 1),
        ("SEQSTREAM_LOG_LEVEL", "DEBUG", "log_level", "debug"),
        ("SEQSTREAM_LOG_FORMAT", "console", "log_format", "console"),
        ("SEQSTREAM_DOCS_PAGE", "false", "docs_page", False),
        (
            "SEQSTREAM_CORS_ORIGINS",
            "https://a.example, http://localhost:3000",
            "cors_origins",
            ("https://a.example", "http://localhost:3000"),
        ),
        (
            "SEQSTREAM_BUILD_COMMAND",
            "python -m build 'two words'",
            "build_command",
            ("python", "-m", "build", "two words"),
        ),
        ("SEQSTREAM_BUILD_LEASE_SECONDS", "2", "build_lease_s", 2.0),
        ("SEQSTREAM_BUILD_TIMEOUT_SECONDS", "60", "build_timeout_s", 60.0),
        ("SEQSTREAM_WORKER_CONCURRENCY", "4", "worker_concurrency", 4),
        ("SEQSTREAM_ASSISTANT_MODEL", "some-model", "assistant_model", "some-model"),
        ("SEQSTREAM_ASSISTANT_KEY", "some-key", "assistant_key", "some-key"),
        ("SEQSTREAM_ASSISTANT_TIMEOUT_SECONDS", "9", "assistant_timeout_s", 9.0),
        ("REDIS_URL", "rediss://cache:6379", "redis_url", "rediss://cache:6379"),
        ("REDIS_URL", "unix:///run/redis.sock", "redis_url", "unix:///run/redis.sock"),
        ("REDIS_URL", "redis+cluster://a:1,b:2", "redis_url", "redis+cluster://a:1,b:2"),
        ("REDIS_URL", "redis+sentinel://a:1,b:2/m/0", "redis_url", "redis+sentinel://a:1,b:2/m/0"),
        ("DATABASE_URL", "postgresql:///app", "database_url", "postgresql:///app"),
        ("SEQSTREAM_HMAC_SECRETS", f"{OTHER} , {HMAC}", "hmac_secrets", (OTHER, HMAC)),
    ],
)
def test_variable_sets_its_field(variable: str, raw: str, field: str, value: object) -> None:
    """§7: each variable sets one field; secrets keep their order, newest first."""
    assert getattr(load(GOOD | {variable: raw}), field) == value


@pytest.mark.parametrize("variable", sorted(GOOD))
@pytest.mark.parametrize("empty", [None, "", "  "])
def test_missing_variable_is_named(variable: str, empty: str | None) -> None:
    """§7: a missing setting stops the start with one line that names it."""
    environ = {name: value for name, value in GOOD.items() if name != variable}
    if empty is not None:
        environ[variable] = empty
    with pytest.raises(SettingsError) as caught:
        load(environ)
    assert str(caught.value) == f"{variable}: is not set"


@pytest.mark.parametrize(
    "variable",
    [
        "SEQSTREAM_HEARTBEAT_SECONDS",
        "SEQSTREAM_SLOW_CLIENT_SECONDS",
        "SEQSTREAM_RETRY_MS",
        "SEQSTREAM_HEADS_POLL_MS",
        "SEQSTREAM_DATABASE_POOL_SIZE",
        "SEQSTREAM_COMMITTERS",
        "SEQSTREAM_POST_TIMEOUT_SECONDS",
        "SEQSTREAM_BUILD_LEASE_SECONDS",
        "SEQSTREAM_BUILD_TIMEOUT_SECONDS",
        "SEQSTREAM_WORKER_CONCURRENCY",
        "SEQSTREAM_ASSISTANT_TIMEOUT_SECONDS",
    ],
)
@pytest.mark.parametrize("raw", ["0", "-1", "nan", "inf", "-inf", "1e400", "soon", "1_0", "1 2"])
def test_number_out_of_range_is_refused(variable: str, raw: str) -> None:
    """§7: an invalid setting stops the start with one line that names it."""
    line = refused(**{variable: raw})
    assert line.startswith(f"{variable}: ")
    assert "\n" not in line


@pytest.mark.parametrize(
    "variable",
    [
        "SEQSTREAM_COALESCE_MS",
        "SEQSTREAM_COALESCE_MOST_MS",
        "SEQSTREAM_MAX_STREAM_AGE_SECONDS",
        "SEQSTREAM_MAX_STREAMS_PER_USER",
        "SEQSTREAM_MAX_STREAMS_PER_PROJECT",
        "SEQSTREAM_MAX_STREAMS",
        "SEQSTREAM_POSTS_PER_SECOND",
    ],
)
@pytest.mark.parametrize("raw", ["-1", "nan", "inf", "many"])
def test_limit_that_may_be_off_refuses_other_values(variable: str, raw: str) -> None:
    """§6: 0 turns a limit off; negative values and NaN are refused."""
    assert load(GOOD | {variable: "0"})
    assert refused(**{variable: raw}).startswith(f"{variable}: ")


@pytest.mark.parametrize(
    "variable, raw, problem",
    [
        ("DATABASE_URL", "mysql://h/d", "must begin with one of postgresql, postgres and ://"),
        ("DATABASE_URL", "postgresql://h:port/d", "is not a URL"),
        ("DATABASE_URL", "postgresql://h/d\nx", "must hold no white space or control characters"),
        (
            "REDIS_URL",
            "http://h",
            "must begin with one of redis, rediss, unix, redis+cluster, redis+sentinel and ://",
        ),
        (
            "REDIS_URL",
            "cache:6379",
            "must begin with one of redis, rediss, unix, redis+cluster, redis+sentinel and ://",
        ),
        ("REDIS_URL", "unix:///", "names no server"),
        ("REDIS_URL", "redis://h:99999", "is not a URL"),
        ("SEQSTREAM_HEARTBEAT_SECONDS", "0", "must be > 0"),
        ("SEQSTREAM_HEARTBEAT_SECONDS", "soon", "must be a number"),
        ("SEQSTREAM_COMMITTERS", "2.5", "must be a whole number"),
        ("SEQSTREAM_DOCS_PAGE", "maybe", "must be true or false"),
        ("SEQSTREAM_LOG_LEVEL", "loud", "must be one of debug, info, warning, error"),
        ("SEQSTREAM_LOG_FORMAT", "xml", "must be one of json, console"),
        (
            "SEQSTREAM_CORS_ORIGINS",
            "*",
            "must list origins like https://app.example, without a path and without *",
        ),
        ("SEQSTREAM_BUILD_COMMAND", "run 'it", "has a quotation mark without its pair"),
        ("SEQSTREAM_BUILD_COMMAND", "''", "names no command"),
        (
            "SEQSTREAM_DATABASE_POOL_SIZE",
            "2",
            "must be greater than SEQSTREAM_COMMITTERS (2)",
        ),
    ],
)
def test_bad_value_is_named_with_its_problem(variable: str, raw: str, problem: str) -> None:
    """§7: the line names the variable and what is wrong with it."""
    assert refused(**{variable: raw}) == f"{variable}: {problem}"


def test_assistant_url_needs_a_model() -> None:
    """§7: settings that need each other are checked together."""
    line = refused(SEQSTREAM_ASSISTANT_URL="http://127.0.0.1:1/v1")
    assert line == "SEQSTREAM_ASSISTANT_MODEL: is needed with SEQSTREAM_ASSISTANT_URL"


@pytest.mark.parametrize("variable", ["SEQSTREAM_HMAC_SECRETS", "SEQSTREAM_TOKEN_SECRETS"])
@pytest.mark.parametrize("short", ["x" * 31, ""])
def test_short_secret_is_refused_and_not_shown(variable: str, short: str) -> None:
    """§7: secrets shorter than 32 characters are refused."""
    line = refused(**{variable: f"{HMAC},{short}"})
    assert line == f"{variable}: secret 2 of 2 is shorter than 32 characters"


@pytest.mark.parametrize("variable", ["SEQSTREAM_HMAC_SECRETS", "SEQSTREAM_TOKEN_SECRETS"])
@pytest.mark.parametrize(
    "weak, problem",
    [
        ("a" * 64, "has fewer than 8 different characters"),
        ("0123456" * 8, "has fewer than 8 different characters"),
        ("abcdefgh" * 4, "repeats one pattern"),
        ("changeme-" * 5, "repeats one pattern"),
        ("please-change-me" * 2, "repeats one pattern"),
        ("abcdefghij" * 3 + "abc", "repeats one pattern"),
    ],
)
def test_weak_secret_is_refused_and_not_shown(variable: str, weak: str, problem: str) -> None:
    """§7: obviously weak secrets are refused; the line names only variable and position."""
    assert refused(**{variable: f"{OTHER},{weak}"}) == f"{variable}: secret 2 of 2 {problem}"


@pytest.mark.parametrize(
    "good",
    [
        # Output of `openssl rand -hex 32`, `secrets.token_hex(16)` and `token_urlsafe(24)`.
        "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "0cb1ed8d37d3a0e8a1d2c4b9f5e60718",
        "y6Qm2v0Yl1jS8sWJmHq9g0w6b7cKx_3-",
        # The repeated pattern is itself as long as a secret must be.
        "9f86d081884c7d659a2feaa0c55ad015" * 2,
    ],
)
def test_generated_secret_is_accepted(good: str) -> None:
    """§7: the output of the documented commands is accepted."""
    assert load(GOOD | {"SEQSTREAM_HMAC_SECRETS": good}).hmac_secrets == (good,)


@pytest.mark.parametrize("variable", ["SEQSTREAM_HMAC_SECRETS", "SEQSTREAM_TOKEN_SECRETS"])
def test_repeated_secret_is_refused(variable: str) -> None:
    """§7: a rotation that changes nothing is a mistake."""
    line = refused(**{variable: f"{OTHER}, {GOOD[variable]} ,{OTHER}"})
    assert line == f"{variable}: secret 3 of 3 is the same as secret 1"


def test_secret_in_both_lists_is_refused() -> None:
    """§7: a holder of the token secret must not be able to sign requests for any user."""
    line = refused(SEQSTREAM_TOKEN_SECRETS=f"{TOKEN},{HMAC}")
    assert line == ("SEQSTREAM_TOKEN_SECRETS: secret 2 of 2 is also in SEQSTREAM_HMAC_SECRETS")


@pytest.mark.parametrize("variable", ["DATABASE_URL", "REDIS_URL", "SEQSTREAM_HEARTBEAT_SECONDS"])
def test_error_never_shows_the_value(variable: str) -> None:
    """A secret in the wrong variable does not get into a log."""
    assert "pa55word" not in refused(**{variable: "pa55word"})


def test_worker_and_migrate_need_fewer_variables() -> None:
    """§7: a command is stopped only by the variables that it needs."""
    without_secrets = {name: GOOD[name] for name in WORKER_NEEDS}
    assert load(without_secrets, needs=WORKER_NEEDS).hmac_secrets == ()
    assert load({"DATABASE_URL": GOOD["DATABASE_URL"]}, needs=MIGRATE_NEEDS).redis_url == ""


@pytest.mark.parametrize("needs", [WORKER_NEEDS, MIGRATE_NEEDS])
def test_secrets_are_not_read_where_they_are_not_needed(needs: tuple[str, ...]) -> None:
    """§3: neither when they are set nor when `serve` would refuse them."""
    assert load(GOOD, needs=needs).token_secrets == load(GOOD, needs=needs).hmac_secrets == ()
    weak = load(GOOD | dict.fromkeys(SIGNING_SECRETS, "weak"), needs=needs)
    assert weak.token_secrets == weak.hmac_secrets == ()
    signs = load(GOOD, needs=["SEQSTREAM_TOKEN_SECRETS"])
    assert (signs.token_secrets, signs.hmac_secrets) == ((TOKEN,), ())


@pytest.mark.parametrize(
    "name", ["DATABASE_URL", "REDIS_URL", "SEQSTREAM_ASSISTANT_KEY", "SEQSTREAM_X", "PGPASSWORD"]
)
def test_builds_cannot_be_given_secrets_of_the_service(name: str) -> None:
    """§8, docs/builds.md: the start is stopped with a line that shows the refused name."""
    assert refused(SEQSTREAM_BUILD_ENV=f"NPM_TOKEN,{name}") == (
        f"SEQSTREAM_BUILD_ENV: must not name {name}: it may hold a secret of ours"
    )
    assert load(GOOD | {"SEQSTREAM_BUILD_ENV": "NPM_TOKEN, CI"}).build_env == ("NPM_TOKEN", "CI")


_EMPTY = {"required", "required for `serve`", "none", "built-in example", "built-in assistant"}


@pytest.mark.parametrize("field", msgspec.structs.fields(Settings), ids=lambda field: field.name)
def test_operations_has_a_row_with_the_default(field: msgspec.structs.FieldInfo) -> None:
    """docs/operations.md: one row for each setting, with its name and default."""
    variable = variable_of(field.name)
    rows = [line.split(" | ") for line in _OPERATIONS.splitlines() if f"| `{variable}` |" in line]
    (shown,) = [row[1].removesuffix(" (off)") for row in rows]
    default = field.default
    if isinstance(default, bool):
        assert shown == str(default).lower()
    elif isinstance(default, int | float):
        assert float(shown) == default
    elif default:
        assert shown == default
    else:
        assert shown in _EMPTY


def test_operations_has_no_row_of_another_setting() -> None:
    """docs/operations.md: a removed setting has no row."""
    named = re.findall(r"^\| `([A-Z_]+)` \|", _OPERATIONS, flags=re.M)
    assert sorted(named) == sorted(variable_of(name) for name in Settings.__struct_fields__)


def test_burst_is_four_seconds_of_posts() -> None:
    """§6: 50 posts a second with bursts of 200; 0 is no limit."""
    assert load(GOOD).posts_burst == 200
    assert load(GOOD | {"SEQSTREAM_POSTS_PER_SECOND": "0"}).posts_burst == 0


@pytest.mark.parametrize("rich", [False, True])
def test_printed_settings_show_no_secret(rich: bool) -> None:
    """Neither secrets nor passwords of URLs, in a log or in a traceback that shows variables."""
    key = "assistant-key-value"
    settings = load(GOOD | {"SEQSTREAM_ASSISTANT_KEY": key})
    if rich:
        out = io.StringIO()
        Console(file=out, width=400).print(settings)
        shown = out.getvalue()
    else:
        shown = f"{settings!r} {settings}"
    assert "heartbeat_s=15.0" in shown
    for secret in (HMAC, TOKEN, key, "pa55word", "r3dis"):
        assert secret not in shown


@pytest.mark.parametrize(
    "url, shown",
    [
        ("redis://cache:6379/0", "redis://cache:6379/0"),
        ("redis://:pa@ss/w?rd@cache:6379/0", "redis://***@cache:6379/0"),
        ("postgresql://u:p@db/x?password=secret", "postgresql://***@db/x"),
        ("redis+sentinel://u:p@a:1,b:2/m", "redis+sentinel://***@a:1,b:2/m"),
    ],
)
def test_url_without_password(url: str, shown: str) -> None:
    """A URL is shown with its host, without user, password and query."""
    assert without_password(url) == shown
