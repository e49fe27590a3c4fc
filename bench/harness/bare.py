"""Load on the stores without the service (`python -m bench.harness.bare`).

Baselines, measured in the same runs as the service, and the library alone:

- `single_row`: one row per commit with the same columns, lock and checks as the log's insert
- `library`: `EventLog.append` by many tasks
- `commit` and `xadd_xread`: a bare commit, and a bare XADD until a blocked XREAD has it, paced
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from array import array
from collections.abc import Awaitable, Callable

import asyncpg
import redis.asyncio as redis
import uvloop

from bench.harness.child import ChildError, Parent, own_cpu_s, write_samples
from bench.harness.marks import filler
from bench.harness.messages import BarePlan, BareResult, Failed, Go, Started
from streams.eventlog import EventLog
from streams.model.errors import StreamsError
from streams.model.events import NewMessage

_USER = "bench"
_TIMEOUT_S = 20.0

# The plain insert of one message: assign its seq under the project's row lock, insert, commit. A
# repeated client_msg_id hits the same unique index as in the service.
_INSERT = """
WITH numbered AS (
    UPDATE projects SET last_seq = last_seq + 1 WHERE id = $1 RETURNING last_seq
)
INSERT INTO messages (project_id, seq, id, client_msg_id, user_id, text, type, mode, actor_type,
                      created_at)
SELECT $1, last_seq, $2, $3, $4, $5, 'user', 'chat', 'client', clock_timestamp() FROM numbered
ON CONFLICT DO NOTHING
RETURNING seq
"""

Operation = Callable[[int], Awaitable[None]]


async def _single_row(plan: BarePlan, stack: contextlib.AsyncExitStack) -> list[Operation]:
    text = filler(plan.text_bytes)
    operations: list[Operation] = []
    for _ in range(plan.concurrency):
        connection = await asyncpg.connect(plan.database_url, timeout=_TIMEOUT_S)
        stack.push_async_callback(connection.close, timeout=_TIMEOUT_S)
        statement = await connection.prepare(_INSERT)

        async def insert(number: int, statement: asyncpg.PreparedStatement = statement) -> None:
            row = await statement.fetchval(
                plan.project, uuid.uuid4(), f"{plan.project}-{number}", _USER, text,
                timeout=_TIMEOUT_S,
            )  # fmt: skip
            if row is None:
                raise ChildError("the project is missing")

        operations.append(insert)
    return operations


async def _library(plan: BarePlan, stack: contextlib.AsyncExitStack) -> list[Operation]:
    text = filler(plan.text_bytes)
    log = await stack.enter_async_context(EventLog.open(plan.database_url, plan.redis_url))

    async def append(number: int) -> None:
        await log.append(
            plan.project,
            NewMessage(user_id=_USER, text=text, client_msg_id=f"{plan.project}-{number}"),
        )

    return [append] * plan.concurrency


async def _xadd_xread(plan: BarePlan, stack: contextlib.AsyncExitStack) -> list[Operation]:
    text = filler(plan.text_bytes)
    writer, reader = (
        redis.Redis.from_url(plan.redis_url, protocol=2, socket_timeout=_TIMEOUT_S)
        for _ in range(2)
    )
    stack.push_async_callback(writer.aclose)
    stack.push_async_callback(reader.aclose)
    key = f"bare:{plan.project}"

    async def read(after: str) -> bool:
        return bool(await reader.xread({key: after}, block=10_000))

    async def there_and_back(number: int) -> None:
        # The reader blocks before the entry is added; ids grow with the numbers.
        reading = asyncio.create_task(read(f"{number - 1}-0"))
        await asyncio.sleep(0.002)
        begun = time.monotonic_ns()
        await writer.xadd(key, {"data": text}, id=f"{number}-0", maxlen=200)
        if not await reading:
            raise ChildError("the entry did not come")
        _measured.append((time.monotonic_ns() - begun) // 1000)

    return [there_and_back]


_PREPARE = {
    "single_row": _single_row,
    "commit": _single_row,
    "library": _library,
    "xadd_xread": _xadd_xread,
}

# An operation that times itself puts its samples here (one operation a process).
_measured = array("q")


async def _run(plan: BarePlan, parent: Parent) -> BareResult:
    samples = array("q")
    done = 0
    number = plan.first_number - 1
    async with contextlib.AsyncExitStack() as stack:
        operations = await _PREPARE[plan.kind](plan, stack)
        parent.send(Started())
        await parent.receive(Go)
        cpu_before = own_cpu_s()
        begun = time.monotonic()
        end = begun + plan.seconds

        async def work(operation: Operation) -> None:
            nonlocal done, number
            while time.monotonic() < end:
                number += 1
                started = time.monotonic_ns()
                await operation(number)
                samples.append((time.monotonic_ns() - started) // 1000)
                done += 1
                if plan.rate:
                    await asyncio.sleep(max(begun + done / plan.rate - time.monotonic(), 0))

        async with asyncio.TaskGroup() as tasks:
            for operation in operations:
                tasks.create_task(work(operation))
        wall_s = time.monotonic() - begun
        cpu_s = own_cpu_s() - cpu_before
    write_samples(plan.samples_path, _measured or samples)
    return BareResult(done=done, wall_s=wall_s, cpu_s=cpu_s)


async def _main() -> None:
    parent = await Parent.connect()
    try:
        parent.send(await _run(await parent.receive(BarePlan), parent))
    except* (
        ChildError, OSError, TimeoutError, asyncpg.PostgresError, redis.RedisError, StreamsError
    ) as errors:  # fmt: skip
        parent.send(Failed(repr(errors.exceptions[0])))


if __name__ == "__main__":
    uvloop.run(_main())
