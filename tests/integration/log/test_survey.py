"""What an operator sees of the log: a project's range and holes, and answers under way."""

from __future__ import annotations

import uuid

from streams.log.database import Database
from streams.log.log import Log, Unit
from streams.log.survey import LogSurvey
from streams.model.events import NewMessage, prepare
from tests.integration.conftest import NewProject


async def _append(log: Log, project: str, count: int) -> None:
    unit = Unit(project, tuple(prepare(NewMessage(user_id="u", text="x")) for _ in range(count)))
    await log.append([unit])


async def test_a_project_is_described_by_its_range_and_newest_seqs(
    log: Log, database: Database, project: str
) -> None:
    """Only the newest are listed, whatever the length of the log; a deleted one is missing."""
    await _append(log, project, 10)
    await database.execute(
        "DELETE FROM messages WHERE project_id = $1 AND seq = ANY ($2::bigint[])", project, [1, 8]
    )
    found = await LogSurvey(database).project(project, newest=4)
    assert found is not None
    assert (found.id, found.owner_id, found.head, found.first_seq) == (project, "owner", 10, 2)
    assert found.newest == (7, 9, 10)


async def test_an_empty_project_has_no_first_seq(database: Database, project: str) -> None:
    """Its head is 0."""
    found = await LogSurvey(database).project(project, newest=4)
    assert found is not None
    assert (found.head, found.first_seq, found.newest) == (0, None, ())


async def test_a_project_that_does_not_exist_is_none(database: Database) -> None:
    """The caller decides what that means."""
    assert await LogSurvey(database).project("no-such", newest=4) is None


async def test_unfinished_answers_are_listed_newest_first(
    database: Database, new_project: NewProject
) -> None:
    """Ended ones and those of other projects are left out; the count is of all."""
    project, other = await new_project(), await new_project()
    await database.execute(
        "INSERT INTO answers (id, project_id, user_id, message_seq, message_id, worker_id,"
        " lease_until, end_seq, created_at)"
        " SELECT gen_random_uuid(), p, 'u', n, $3, 'w', now() + interval '1 minute',"
        "        CASE WHEN n = 1 THEN 9 END, now() - make_interval(secs => 10 - n)"
        "   FROM unnest(ARRAY[$1, $2]) p, generate_series(1, 4) n",
        project, other, uuid.uuid4(),
    )  # fmt: skip
    survey = LogSurvey(database)
    answers, count = await survey.open_answers(project, limit=2)
    assert [answer.message_seq for answer in answers] == [4, 3]
    assert count == 3
    assert 5 < answers[0].age_s < 60
    _, in_all = await survey.open_answers(None, limit=1)
    assert in_all >= 6
    await database.execute(
        "UPDATE answers SET end_seq = 9 WHERE project_id = ANY ($1::text[])", [project, other]
    )
    assert await survey.open_answers(project, limit=2) == ([], 0)
