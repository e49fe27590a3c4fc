"""The list of all faults, in the order in which they run."""

from __future__ import annotations

from tests.faults import (
    access_faults,
    client_faults,
    double_faults,
    machine_faults,
    network_faults,
    postgres_faults,
    process_faults,
    redis_faults,
)
from tests.faults.scenario import Fault

ALL: list[Fault] = [
    *client_faults.FAULTS,
    *access_faults.FAULTS,
    *redis_faults.FAULTS,
    *postgres_faults.FAULTS,
    *process_faults.FAULTS,
    *network_faults.FAULTS,
    *machine_faults.FAULTS,
    *double_faults.FAULTS,
]
