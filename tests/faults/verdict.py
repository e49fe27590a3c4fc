"""The verdict on a fault: everything that was recorded, compared with the log by the checkers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from tests.faults.load import Load, longest_delay_s, longest_silence_s
from tests.faults.result import Result
from tests.faults.scenario import Fault, Scene
from tests.support.answer_checker import ANSWER_KINDS, check_answers
from tests.support.build_checker import BUILD_KINDS, check_builds
from tests.support.checker import Report, check
from tests.support.history import BuildRow, LogRow
from tests.support.violations import Kind, Violation

_COUNTED = (
    Kind.LOST, Kind.UNANNOUNCED, Kind.REPEATED, Kind.REORDERED, Kind.CHANGED, Kind.ACK_MISSING,
    Kind.LOG_REPEAT, Kind.ACK_TWICE,
)  # fmt: skip


@dataclass(frozen=True)
class Recorded:
    """What was read back after a fault, and what failed until then."""

    builds: list[BuildRow]
    log: list[LogRow]
    failures: list[str]
    caught_up_s: float


def judge_builds(
    fault: Fault, load: Load, builds: list[BuildRow], log: list[LogRow]
) -> list[Violation]:
    """Compare the builds that clients saw with how the builds ended."""
    assert load.build_requester is not None
    return check_builds(
        requests=load.build_requester.posts,
        acknowledgements=load.build_requester.build_acknowledgements,
        builds=builds,
        clients=load.histories(),
        log=log,
        guarantee=fault.statuses,
    )


def judge_answers(fault: Fault, load: Load, log: list[LogRow]) -> list[Violation]:
    """Compare the answers that clients saw with the messages that they became."""
    assert load.answers is not None
    clients = load.histories()
    return check_answers(load.answers.recorded(clients, log, keeps_pieces=fault.keeps_pieces))


def _check_messages(load: Load, log: list[LogRow]) -> Report:
    return check(
        posts=[post for writer in load.writers for post in writer.posts],
        acknowledgements=[ack for writer in load.writers for ack in writer.acknowledgements],
        clients=load.histories(),
        log=log,
    )


def judge(fault: Fault, scene: Scene, seed: int, recorded: Recorded) -> Result:
    """Judge everything; the result counts what was wrong by kind."""
    load, builds, log = scene.load, recorded.builds, recorded.log
    assert load.build_requester is not None
    assert load.answers is not None
    acks = [ack for writer in load.writers for ack in writer.acknowledgements]
    report = _check_messages(load, log)
    of_builds = judge_builds(fault, load, builds, log)
    of_answers = judge_answers(fault, load, log)
    failures = list(recorded.failures)
    refused = scene.answers()["429"]
    if refused:
        failures.append(f"rate limits refused {refused} posts of writers that stay below them")
    return Result(
        fault=fault.name,
        seed=seed,
        length_s=scene.length_s,
        clients=len(load.clients),
        posts_per_s=load.size.posts_per_s,
        acknowledged=report.acknowledged,
        in_log=len(log),
        delivered=report.delivered,
        announced_unsent=report.announced,
        reconnects=sum(client.reconnects for client in load.clients),
        longest_silence_s=longest_silence_s(load.steady, load.began_s, load.ended_s),
        longest_delay_s=longest_delay_s(load.steady, {ack.seq: ack.at_s for ack in acks}),
        allowed_delay_s=fault.silence_s,
        caught_up_s=recorded.caught_up_s,
        lost=report.count(Kind.LOST, Kind.UNANNOUNCED, Kind.ACK_MISSING),
        repeated=report.count(Kind.REPEATED, Kind.LOG_REPEAT, Kind.ACK_TWICE),
        reordered=report.count(Kind.REORDERED),
        changed=report.count(Kind.CHANGED),
        other=len(report.violations)
        - report.count(*_COUNTED)
        + sum(violation.kind not in BUILD_KINDS for violation in of_builds)
        + sum(violation.kind not in ANSWER_KINDS for violation in of_answers),
        builds_asked=len(
            {answer.build_id for answer in load.build_requester.build_acknowledgements}
        ),
        builds_ended=sum(build.end_seq is not None for build in builds),
        builds_wrong=sum(violation.kind in BUILD_KINDS for violation in of_builds),
        answers_asked=load.answers.count,
        answer_ends=dict(Counter(row.answer_end.type for row in log if row.answer_end)),
        answers_wrong=sum(violation.kind in ANSWER_KINDS for violation in of_answers),
        violations=[str(each) for each in (*report.violations, *of_builds, *of_answers)][:50],
        failures=failures,
        notes=scene.notes,
        answers=dict(scene.answers()),
        ends=dict(Counter(end for client in load.clients for end in client.ends)),
    )
