"""docs/protocol.md §8 as a state machine: statuses, leases and attempts, on a real Postgres.

Several workers, some of which have lost their lease without noticing, act in any order. Whatever
they do, builds take legal steps only and end once, with one message each.
"""

from __future__ import annotations

from itertools import count, pairwise
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)

from streams.builds.build_errors import BuildEnded, LeaseLost
from streams.builds.build_rows import BuildRows
from streams.log.log import Log
from streams.model.build import MAX_ATTEMPTS, Build
from streams.model.build_states import read_build_status, states
from streams.model.events import NewMessage
from tests.support.looped_database import LoopedDatabase

WORKERS = st.sampled_from(["w1", "w2", "w3"])
_STEPS = {
    ("queued", "in_progress"), ("queued", "failed"), ("in_progress", "in_progress"),
    ("in_progress", "completed"), ("in_progress", "failed"),
}  # fmt: skip
_numbers = count(1)


class _Machine(RuleBasedStateMachine):
    claims: Bundle[Build | None] = Bundle("claims")
    servers: LoopedDatabase

    def __init__(self) -> None:
        super().__init__()
        self.run = self.servers.run
        self.log = Log(self.servers.database)
        self.rows = BuildRows(self.servers.database, self.log)
        self.project = f"p-{next(_numbers)}"
        # Builds that were requested, in order of their first request.
        self.asked: list[str] = []
        # Who took the lease last, by the model: build → (attempt, worker).
        self.holder: dict[str, tuple[int, str]] = {}
        self.expired: set[str] = set()
        # Builds whose lease was given back: the next claim continues the same attempt.
        self.given_back: set[str] = set()
        self._sql("DELETE FROM builds")
        self._sql(f"INSERT INTO projects (id, owner_id, name) VALUES ('{self.project}', 'u', 'x')")

    def _sql(self, text: str) -> None:
        self.run(self.servers.database.execute(text))

    def _build(self, build_id: str) -> Build:
        return self.run(self.rows.reader.get(self.project, build_id))

    def _is_held_by(self, build: Build) -> bool:
        return self.holder.get(build.id) == (build.attempt, build.worker_id)

    def _ended(self, build: Build) -> None:
        self.holder.pop(build.id, None)
        self.expired.discard(build.id)
        self.given_back.discard(build.id)

    @rule(number=st.integers(0, 2))
    def ask(self, number: int) -> None:
        message = NewMessage(user_id="u", text="make it", mode="build", client_msg_id=f"c{number}")
        asked = self.run(self.rows.requests.ask(self.project, message))
        if asked.appended.duplicate:
            assert asked.build.id in self.asked
        else:
            assert (asked.build.status, asked.build.attempt) == ("queued", 0)
            self.asked.append(asked.build.id)

    @rule(target=claims, worker=WORKERS)
    def claim(self, worker: str) -> Build | None:
        builds = self.run(self.rows.leases.claim(worker, 1, lease_s=3600))
        for build in builds:
            assert build.id not in self.holder or build.id in self.expired
            before = self.holder.get(build.id, (0, ""))[0]
            assert build.attempt == before + (build.id not in self.given_back)
            self.given_back.discard(build.id)
            self.holder[build.id] = (build.attempt, worker)
            self.expired.discard(build.id)
            return build
        return None

    @rule(build=claims)
    def report(self, build: Build | None) -> None:
        if build is None:
            return
        try:
            reported = self.run(self.rows.leases.report(build, progress=50, lease_s=3600))
        except LeaseLost:
            assert not self._is_held_by(build)
        else:
            assert self._is_held_by(build)
            assert (reported.status, reported.attempt) == ("in_progress", build.attempt)
            self.expired.discard(build.id)

    @rule(build=claims)
    def renew(self, build: Build | None) -> None:
        if build is None:
            return
        try:
            go_on = self.run(self.rows.leases.renew(build, lease_s=3600))
        except LeaseLost:
            assert not self._is_held_by(build)
        else:
            assert self._is_held_by(build)
            assert go_on is not self._build(build.id).cancelled
            self.expired.discard(build.id)

    @rule(build=claims, status=st.sampled_from(["completed", "failed"]))
    def finish(self, build: Build | None, status: Any) -> None:
        if build is None:
            return
        try:
            finished = self.run(self.rows.ends.finish(build, status))
        except LeaseLost:
            assert not self._is_held_by(build)
        else:
            # A repeat by the worker that ended the build is harmless and appends nothing.
            assert self._is_held_by(build) is (finished.message is not None)
            self._ended(build)

    @rule(build=claims)
    def release(self, build: Build | None) -> None:
        if build is not None:
            self.run(self.rows.leases.release(build))
            if self._is_held_by(build):
                self.expired.add(build.id)
                self.given_back.add(build.id)
                self.holder[build.id] = (build.attempt, "")

    @rule(build=claims)
    def time_passes(self, build: Build | None) -> None:
        if build is not None and build.id in self.holder:
            self._sql(
                f"UPDATE builds SET lease_until = now() - interval '1 s' WHERE id = '{build.id}'"
            )
            self.expired.add(build.id)

    @rule(number=st.integers(0, 2))
    def cancel(self, number: int) -> None:
        if number >= len(self.asked):
            return
        before = self._build(self.asked[number])
        try:
            finished = self.run(self.rows.ends.cancel(self.project, before.id))
        except BuildEnded:
            assert before.ended
            return
        is_held = before.id in self.holder and before.id not in self.expired
        assert finished.build.ended is not is_held
        if finished.build.ended:
            self._ended(finished.build)

    @rule()
    def give_up(self) -> None:
        for finished in self.run(self.rows.ends.fail_abandoned()):
            build = finished.build
            assert build.id in self.expired
            assert build.attempt == MAX_ATTEMPTS or build.cancelled
            assert build.id not in self.given_back or build.cancelled
            self._ended(build)

    @invariant()
    def builds_are_right(self) -> None:
        messages = self.run(self.log.read(self.project))
        for build_id in self.asked:
            build = self._build(build_id)
            path = [change.status for change in build.changes]
            assert path[0] == "queued"
            assert all(step in _STEPS for step in pairwise(path))
            assert path[-1] == build.status
            assert build.attempt == path.count("in_progress") <= MAX_ATTEMPTS
            assert build.ended is (build.id not in self.holder and len(path) > 1)
            announced = [read_build_status(state.data) for state in states(build)]
            assert [each is not None and each[1] for each in announced] == sorted(
                {each[1] for each in announced if each is not None}
            )
            ends = [m for m in messages if build_id.encode() in bytes(m.metadata)]
            assert len(ends) == (1 if build.ended else 0)
            if build.ended:
                assert build.end_seq == ends[0].seq
                assert (b"build_completed" in bytes(ends[0].metadata)) is (
                    build.status == "completed"
                )
        assert len({m.seq for m in messages}) == len(messages)


def test_builds_take_legal_steps_only_and_end_once(servers: LoopedDatabase) -> None:
    """§8: whatever workers and clients do and time passes; without the lease, no writes."""
    _Machine.servers = servers
    run_state_machine_as_test(
        _Machine,
        settings=settings(
            max_examples=15,
            stateful_step_count=30,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )
