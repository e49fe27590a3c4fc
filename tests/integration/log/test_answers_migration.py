"""docs/protocol.md §7, rolling upgrade: answers that older code began or ended, beside new ones."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from service.operate.embedded import PostgresServer
from streams.answers.answer_ends import Ending
from streams.answers.answer_rows import AnswerRows
from streams.log import sql
from streams.log.database import Database
from streams.log.log import Log
from streams.log.migrations import migrate
from streams.model.events import NewMessage

# The statements of the code before answers kept their text.
_CREATE = """
INSERT INTO answers (id, project_id, user_id, message_seq, message_id, worker_id, lease_until)
VALUES (gen_random_uuid(), 'p', 'u', $1, gen_random_uuid(), 'old', now() + interval '1 hour')
RETURNING id, message_id
"""
_END = "UPDATE answers SET end_seq = $2 WHERE id = $1"
_MESSAGE = """
INSERT INTO messages (project_id, seq, id, user_id, text, type, mode, actor_type, metadata,
                      created_at)
VALUES ('p', $1, $2, 'u', 'said', 'assistant', 'plan', 'assistant',
        json_build_object('response_data', json_build_object('type', $3::text)), now())
"""


@pytest.fixture
async def upgraded(postgres: PostgresServer) -> AsyncIterator[Database]:
    """A database with the schema before answers kept their text."""
    name = "answers_migration"
    database = await Database.open(postgres.create_database(name), size=4)
    async with database.transaction() as session:
        await session.execute(
            "CREATE TABLE schema_migrations (number int PRIMARY KEY, name text NOT NULL,"
            " at timestamptz DEFAULT now(), breaking boolean NOT NULL DEFAULT false)"
        )
        for number, migration, text in sql.migrations():
            if number < 5:
                await session.execute(text)
                await session.execute(
                    "INSERT INTO schema_migrations (number, name) VALUES ($1, $2)",
                    number, migration,
                )  # fmt: skip
        await session.execute(
            "INSERT INTO projects (id, owner_id, name, last_seq) VALUES ('p', 'o', 'x', 20)"
        )
    yield database
    await database.close()
    postgres.psql(f'DROP DATABASE "{name}" WITH (FORCE)')


async def test_answers_of_older_code_go_on_after_the_migration(upgraded: Database) -> None:
    """Ended ones show their status and text; running ones are stopped, renewed and ended."""
    ended = {}
    for seq, kind in ((11, "answer"), (12, "answer_failed")):
        (row,) = await upgraded.fetch(_CREATE, seq)
        await upgraded.execute(_MESSAGE, seq, row["id"], kind)
        await upgraded.execute(_END, row["id"], seq)
        ended[kind] = row
    (running,) = await upgraded.fetch(_CREATE, 13)
    assert "0006_answer_pieces.sql" in await migrate(upgraded)
    rows = AnswerRows(upgraded, Log(upgraded), lambda _: None)
    for kind, status in (("answer", "completed"), ("answer_failed", "failed")):
        state = await rows.state("p", str(ended[kind]["id"]))
        assert state is not None
        assert state.answer.reply_to == str(ended[kind]["message_id"])
        assert (state.answer.id, state.status, state.text) == (
            str(ended[kind]["id"]), status, "said",
        )  # fmt: skip
    # Older code runs beside: it still begins and ends answers, and does not see a stop.
    (beside,) = await upgraded.fetch(_CREATE, 14)
    await upgraded.execute(_MESSAGE, 14, beside["id"], "answer")
    await upgraded.execute(_END, beside["id"], 14)
    state = await rows.state("p", str(beside["id"]))
    assert state is not None
    assert state.status == "completed"
    assert await rows.request_stop("p", str(running["id"]), "stops") is not None
    assert await rows.take_over("new", lease_s=30, stop_patience_s=60) == []
    (taken,) = await rows.take_over("new", lease_s=30, stop_patience_s=0)
    message = await rows.end(taken, "new", Ending(reason="it did not stop"))
    assert message is not None
    assert b'"stoppedBy":"stops"' in bytes(message.metadata)
    assert (await rows.begin("p", NewMessage(user_id="o", text="x"), "new", lease_s=30)).is_ours
