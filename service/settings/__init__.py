"""The settings of a process: `declaration.py` says what there is, `parsing.py` reads it."""

from service.settings.declaration import (
    MIGRATE_NEEDS,
    SERVICE_NEEDS,
    SERVICE_SECRETS,
    SIGNING_SECRETS,
    WORKER_NEEDS,
    Settings,
    variable_of,
    without_password,
)
from service.settings.parsing import SettingsError, load

__all__ = [
    "MIGRATE_NEEDS",
    "SERVICE_NEEDS",
    "SERVICE_SECRETS",
    "SIGNING_SECRETS",
    "WORKER_NEEDS",
    "Settings",
    "SettingsError",
    "load",
    "variable_of",
    "without_password",
]
