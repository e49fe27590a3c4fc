"""What every subcommand of `seqstream` has around it: output, settings, errors as one line."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from functools import wraps
from typing import ParamSpec, TypeVar

from rich.console import Console

from service.client import ClientError
from service.operate import private_environ
from service.operate.load_figures import LoadFailed
from service.settings import Settings, SettingsError, load
from service.telemetry import logs
from streams.model.errors import StreamsError

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)

P = ParamSpec("P")
R = TypeVar("R")


_MAX_SHOWN = 500


def harmless(text: str) -> str:
    """Return a text of a peer as one bounded line: it must not command the terminal."""
    line = "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text)
    return line if len(line) <= _MAX_SHOWN else f"{line[:_MAX_SHOWN]}…"


def settings_for(needs: Sequence[str]) -> Settings:
    """Load the settings and configure logging; exit 2 when one of `needs` is missing or wrong."""
    try:
        private_environ.take()
        settings = load(os.environ, needs=needs)
    except SettingsError as error:
        # One line that names the variable; nothing was started.
        err.print(str(error), markup=False)
        sys.exit(2)
    logs.configure(settings.log_level, settings.log_format)
    return settings


def plain_errors(command: Callable[P, R]) -> Callable[P, R]:
    """Print an expected failure as one line, without a stack trace, and exit 1."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except (StreamsError, ClientError, LoadFailed) as error:
            err.print(f"error: {harmless(str(error))}", markup=False)
            sys.exit(1)
        except KeyboardInterrupt:
            sys.exit(130)

    return run
