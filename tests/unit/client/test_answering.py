"""Writing an answer: what is sent and when, what is tried again, and how it ends. Virtual time."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine
from typing import Any

import httpx
import pytest

from service.client import (
    AccessDenied,
    AnswerStopped,
    BadRequest,
    Client,
    ClientError,
    Conflict,
    Refused,
    Unavailable,
)
from tests.support.waiting import wait_until
from tests.unit.client.answer_service import AnswerService, refusal, with_service

Write = Callable[[AnswerService, Client], Coroutine[Any, Any, None]]


async def _write_one(service: AnswerService, client: Client) -> None:
    async with client.answer("p", reply_to="m1") as answer:
        await answer.write("one")


async def _is_sent(service: AnswerService, count: int = 1) -> None:
    """Wait until some requests with pieces are done."""
    await wait_until(lambda: len(service.sent) >= count and not service.under_way)


def test_an_answer_is_begun_written_and_ended() -> None:
    """§5: begin, pieces, end; what was written last is there."""

    async def main(service: AnswerService, client: Client) -> None:
        async with client.answer("p", reply_to="m1", client_msg_id="c1") as answer:
            assert (answer.message_id, answer.is_continued) == ("a1", False)
            await answer.write_part("reasoning", {"text": "hm"})
            await answer.write("Hello ")
            await answer.write("world")
            answer.metadata["model"] = "m"
        assert answer.ended is not None
        assert (answer.ended.status, answer.ended.seq) == ("completed", 7)

    service = with_service(main)
    assert service.begun == [{"replyTo": "m1", "client_msg_id": "c1"}]
    assert service.pieces == [
        {"kind": "reasoning", "data": {"text": "hm"}},
        {"kind": "text", "delta": "Hello world"},
    ]
    assert service.ends == [{"status": "completed", "metadata": {"model": "m"}}]


def test_a_final_text_replaces_what_was_written() -> None:
    """§5: `text` of the end."""

    async def main(service: AnswerService, client: Client) -> None:
        async with client.answer("p", reply_to="m1") as answer:
            await answer.write("draft")
            answer.final_text = "whole"

    assert with_service(main).ends == [{"status": "completed", "text": "whole"}]


def test_what_is_written_fast_is_joined_into_twenty_requests_a_second() -> None:
    """A model of 1000 pieces a second: in 1 s at most 21 requests, of one piece each."""

    async def main(service: AnswerService, client: Client) -> None:
        async with client.answer("p", reply_to="m1") as answer:
            for _ in range(1000):
                await answer.write("x")
                await asyncio.sleep(0.001)

    service = with_service(main)
    assert service.text == "x" * 1000
    assert 15 <= len(service.sent) <= 21
    assert all(len(sent.parts) == 1 for sent in service.sent)
    between_s = [b.at_s - a.at_s for a, b in itertools.pairwise(service.sent)]
    assert min(between_s) >= 0.05 - 1e-9


def test_the_first_piece_is_sent_at_once() -> None:
    """Nobody waits for a batch to fill."""

    async def main(service: AnswerService, client: Client) -> None:
        async with client.answer("p", reply_to="m1") as answer:
            await asyncio.sleep(3)
            await answer.write("x")
            await asyncio.sleep(3)

    assert [sent.at_s for sent in with_service(main).sent] == [3.0]


def test_a_lost_response_is_made_up_for_with_the_same_pieces() -> None:
    """What is written meanwhile comes after them: a repeat is dropped by its index."""

    async def main(service: AnswerService, client: Client) -> None:
        async with client.answer("p", reply_to="m1") as answer:
            service.faults = [0.5, 0.5]
            await answer.write("one")
            await asyncio.sleep(0.1)
            await answer.write(" two")

    service = with_service(main)
    repeats = [(sent.first, sent.parts) for sent in service.sent[:3]]
    assert repeats == [(0, [{"kind": "text", "delta": "one"}])] * 3
    assert service.text == "one two"


def test_a_begin_whose_response_was_lost_has_the_same_id() -> None:
    """Idempotent: nothing is begun twice."""
    service = AnswerService()
    service.faults = [0.1, httpx.ConnectError("no")]
    with_service(_write_one, service)
    first, second = service.begun
    assert first == second
    assert first["client_msg_id"]


@pytest.mark.parametrize("status", [429, 503])
def test_a_refusal_that_passes_is_waited_for(status: int) -> None:
    """As long as the service asks."""

    async def main(service: AnswerService, client: Client) -> None:
        async with client.answer("p", reply_to="m1") as answer:
            service.faults = [httpx.Response(status, headers={"Retry-After": "2"})]
            await answer.write("one")

    service = with_service(main)
    assert service.text == "one"
    assert service.sent[0].at_s >= 2


def test_a_slow_model_is_not_given_up() -> None:
    """Without pieces for a minute, an empty request renews the lease every 10 s."""

    async def main(service: AnswerService, client: Client) -> None:
        async with client.answer("p", reply_to="m1") as answer:
            await asyncio.sleep(35)
            await answer.write("late")

    service = with_service(main)
    assert [(sent.at_s, sent.parts) for sent in service.sent[:3]] == [(10, []), (20, []), (30, [])]
    assert service.text == "late"


def test_a_writer_waits_while_64_kib_are_unacknowledged() -> None:
    """Back-pressure: it does not fill the memory while the service is away."""
    written = 0

    async def write(service: AnswerService, client: Client) -> None:
        nonlocal written
        async with client.answer("p", reply_to="m1") as answer:
            service.faults = [5.0]
            for _ in range(40):
                await answer.write("x" * 4096)
                written += 4096

    async def main(service: AnswerService, client: Client) -> None:
        writing = asyncio.create_task(write(service, client))
        await asyncio.sleep(4)
        assert written == 64 * 1024
        await writing

    service = with_service(main)
    assert service.text == "x" * 40 * 4096


def test_pieces_that_the_service_has_lost_are_sent_again() -> None:
    """`INDEX_GAP`: from the piece that is expected on, with the same pieces."""

    async def main(service: AnswerService, client: Client) -> None:
        async with client.answer("p", reply_to="m1") as answer:
            for number in range(3):
                await answer.write(f"{number} ")
                await _is_sent(service, number + 1)
            del service.pieces[1:]
            await answer.write("3")

    service = with_service(main)
    assert [piece["delta"] for piece in service.pieces] == ["0 ", "1 ", "2 ", "3"]


def test_a_gap_that_cannot_be_filled_is_a_conflict() -> None:
    """What another program wrote before is not known here."""

    async def write(service: AnswerService, client: Client) -> None:
        async with client.answer("p", reply_to="m1") as answer:
            assert answer.is_continued
            service.pieces.clear()
            await answer.write("x")

    async def main(service: AnswerService, client: Client) -> None:
        service.pieces = [{"delta": "before"}] * 2
        with pytest.raises(Conflict) as raised:
            await write(service, client)
        assert raised.value.code == "INDEX_GAP"

    assert with_service(main).ends[0]["status"] == "failed"


def test_a_second_writer_of_an_answer_is_noticed() -> None:
    """Its pieces have taken indexes that were not sent here."""

    async def write(service: AnswerService, client: Client) -> None:
        async with client.answer("p", message_id="a1") as answer:
            service.pieces = [{"delta": "other"}] * 3
            await answer.write("x")

    async def main(service: AnswerService, client: Client) -> None:
        with pytest.raises(Conflict):
            await write(service, client)

    with_service(main)


def test_a_stop_leaves_the_block_and_goes_no_further() -> None:
    """The next `write` raises; the answer ends as stopped."""
    reached: list[object] = []

    async def main(service: AnswerService, client: Client) -> None:
        async with client.answer("p", reply_to="m1") as answer:
            service.status = "stopped"
            await answer.write("x")
            await _is_sent(service)
            with pytest.raises(AnswerStopped):
                await answer.write("y")
            await answer.write("z")
            reached.append("after the stop")
        reached.append(answer.ended and answer.ended.status)

    assert with_service(main).ends == [{"status": "stopped"}]
    assert reached == ["stopped"]


def test_a_stop_that_is_noticed_at_the_end_raises_nothing() -> None:
    """Nothing was left to write."""

    async def main(service: AnswerService, client: Client) -> None:
        async with client.answer("p", reply_to="m1") as answer:
            service.status = "stopped"
            await answer.write("x")
        assert answer.ended is not None
        assert answer.ended.status == "stopped"

    with_service(main)


def test_a_waiting_writer_hears_of_the_stop() -> None:
    """It waits for room that will not come."""
    reached: list[str] = []

    async def main(service: AnswerService, client: Client) -> None:
        async with client.answer("p", reply_to="m1") as answer:
            service.status = "stopped"
            await answer.write("x" * 100_000)
            await answer.write("y")
            reached.append("after the stop")
        reached.append("after the block")

    with_service(main)
    assert reached == ["after the block"]


def test_an_exception_of_the_block_fails_the_answer() -> None:
    """The text is kept, the exception goes on, and nothing of it reaches the members."""

    async def write(client: Client) -> None:
        async with client.answer("p", reply_to="m1") as answer:
            await answer.write("half")
            raise OSError("secret")

    async def main(service: AnswerService, client: Client) -> None:
        with pytest.raises(OSError, match="secret"):
            await write(client)

    service = with_service(main)
    assert service.text == "half"
    assert service.ends == [{"status": "failed", "reason": "the assistant failed"}]


def test_a_block_may_fail_with_a_reason_of_its_own() -> None:
    """`fail`: no exception, and members see why."""

    async def main(service: AnswerService, client: Client) -> None:
        async with client.answer("p", reply_to="m1") as answer:
            answer.metadata["model"] = "m"
            answer.fail("r" * 600)

    assert with_service(main).ends == [
        {"status": "failed", "reason": "r" * 500, "metadata": {"model": "m"}}
    ]


def test_metadata_that_is_refused_does_not_keep_the_answer_open() -> None:
    """The error is raised; the answer has failed, and says nothing but that."""

    async def write(service: AnswerService, client: Client) -> None:
        async with client.answer("p", reply_to="m1") as answer:
            await answer.write("x")
            await _is_sent(service)
            answer.metadata["k"] = "refused"
            service.faults = [refusal(400, "VALIDATION_FAILED")]

    async def main(service: AnswerService, client: Client) -> None:
        with pytest.raises(BadRequest):
            await write(service, client)

    assert with_service(main).ends == [{"status": "failed", "reason": "the assistant failed"}]


def test_a_cancelled_block_fails_the_answer_within_two_seconds() -> None:
    """It flushes when the service answers, and gives up when not."""

    async def write(service: AnswerService, client: Client, written: asyncio.Event) -> None:
        async with client.answer("p", reply_to="m1") as answer:
            await answer.write("one")
            await _is_sent(service)
            await answer.write("two")
            written.set()
            await asyncio.sleep(1000)

    async def cancel(service: AnswerService, client: Client, faults: list[float]) -> float:
        written = asyncio.Event()
        writing = asyncio.create_task(write(service, client, written))
        await written.wait()
        service.faults = list(faults)
        begin_s = asyncio.get_running_loop().time()
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        return asyncio.get_running_loop().time() - begin_s

    async def at_once(service: AnswerService, client: Client) -> None:
        assert await cancel(service, client, []) < 0.2

    async def hanging(service: AnswerService, client: Client) -> None:
        assert await cancel(service, client, [60.0]) == pytest.approx(2)

    service = with_service(at_once)
    assert (service.text, service.ends[0]["status"]) == ("onetwo", "failed")
    assert with_service(hanging).ends == []


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (409, "ANSWER_ENDED", Conflict),
        (403, "FORBIDDEN", AccessDenied),
        (413, "PAYLOAD_TOO_LARGE", Refused),
        (400, "VALIDATION_FAILED", BadRequest),
    ],
)
def test_what_the_service_refuses_is_raised(
    status: int, code: str, error: type[ClientError]
) -> None:
    """By the next `write`, or by the end of the block."""
    reached: list[str] = []

    async def write_on(service: AnswerService, client: Client) -> None:
        async with client.answer("p", reply_to="m1") as answer:
            service.faults = [refusal(status, code)]
            await answer.write("x")
            await asyncio.sleep(1)
            await answer.write("y")
            reached.append("after the refusal")

    async def write_last(service: AnswerService, client: Client) -> None:
        async with client.answer("p", reply_to="m1") as answer:
            service.faults = [refusal(status, code)]
            await answer.write("x")

    for write in (write_on, write_last):

        async def main(service: AnswerService, client: Client, write: Write = write) -> None:
            with pytest.raises(error):
                await write(service, client)

        assert with_service(main).ends[0]["status"] == "failed"
    assert reached == []


def test_an_answer_that_ended_before_is_not_written() -> None:
    """Begun again under its client_msg_id, as after a restart: the block is not run."""

    async def main(service: AnswerService, client: Client) -> None:
        service.status = "completed"
        with pytest.raises(Conflict) as raised:
            async with client.answer("p", reply_to="m1", client_msg_id="c1"):
                raise AssertionError("the block was run")
        assert raised.value.code == "ANSWER_ENDED"

    assert with_service(main).ends == []


def test_a_service_that_is_away_too_long_is_raised() -> None:
    """Within the client's timeout, and the answer is given up soon after."""

    async def write(service: AnswerService, client: Client) -> None:
        async with client.answer("p", reply_to="m1") as answer:
            service.faults = [httpx.ConnectError("no")] * 1000
            await answer.write("x")

    async def main(service: AnswerService, client: Client) -> None:
        with pytest.raises(Unavailable):
            await write(service, client)
        assert asyncio.get_running_loop().time() == pytest.approx(40)

    with_service(main)


def test_nothing_is_written_after_the_block() -> None:
    """A task that outlives it is told."""

    async def main(service: AnswerService, client: Client) -> None:
        async with client.answer("p", reply_to="m1") as answer:
            pass
        with pytest.raises(RuntimeError):
            await answer.write("x")

    assert with_service(main).sent == []


def test_what_is_no_json_is_refused_where_it_is_written() -> None:
    """Half a surrogate pair, or an object: the rest of the answer is not harmed."""

    async def main(service: AnswerService, client: Client) -> None:
        async with client.answer("p", reply_to="m1") as answer:
            with pytest.raises(BadRequest):
                await answer.write("\ud800")
            with pytest.raises(BadRequest):
                await answer.write_part("data", object())
            await answer.write("fine")

    assert with_service(main).text == "fine"


def test_an_answer_is_to_a_message_or_goes_on() -> None:
    """Not both, not neither; and an id is no path."""

    async def main(service: AnswerService, client: Client) -> None:
        with pytest.raises(ValueError):
            await client.answer("p").__aenter__()
        with pytest.raises(ValueError):
            await client.answer("p", reply_to="m", message_id="a").__aenter__()
        with pytest.raises(BadRequest):
            await client.answer("p", message_id="../x").__aenter__()

    assert with_service(main).begun == []
