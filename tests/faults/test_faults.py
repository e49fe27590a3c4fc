"""Short versions of the faults: nothing lost, repeated, reordered, changed or invented.

The most important faults always run; SEQSTREAM_ALL_FAULTS=1 adds the others (some minutes).
`make faults` runs all of them at full length and measures delays; no time is judged here.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from service.operate.embedded import PostgresServer
from tests.faults.catalogue import ALL
from tests.faults.load import Size
from tests.faults.run import run_fault
from tests.faults.scenario import Fault
from tests.faults.world import SharedPostgres

_ALWAYS = {
    "no fault",
    "many stalled clients",
    "callers leave in the middle of a post",
    "redis killed, back empty",
    "redis stopped",
    "redis FLUSHALL under load",
    "redis refuses writes: full",
    "redis failed over to a lagging replica",
    "postgres restarted",
    "postgres tables missing",
    "process killed",
    "process killed, no limit on posts",
    "process killed before publishing",
    "process terminated under load",
    "clients cut",
    "redis connections cut",
}
_CHOSEN = [f for f in ALL if f.name in _ALWAYS or os.environ.get("SEQSTREAM_ALL_FAULTS")]

_SEED = 20_240_229


@pytest.mark.timeout(180, method="signal")  # a thread would end pytest and leave servers
@pytest.mark.parametrize("fault", _CHOSEN, ids=lambda fault: fault.name.replace(" ", "-"))
async def test_guarantees_hold(
    fault: Fault, tmp_path: Path, postgres: PostgresServer, template_database: str
) -> None:
    """G1 to G7 of docs/protocol.md §2 hold under the fault; then every process exits with 0."""
    reason = fault.unavailable()
    if reason is not None:
        pytest.skip(reason)
    result = await run_fault(
        fault,
        tmp_path,
        SharedPostgres(postgres, template_database),
        size=Size(),
        length_s=fault.short_s,
        seed=_SEED,
    )
    assert result.ok, "\n".join([*result.failures, *result.violations, *result.notes])
    assert result.acknowledged > 0
    assert result.delivered > 0
    assert result.answer_ends
