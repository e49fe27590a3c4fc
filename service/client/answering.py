"""Writing one answer: however the block ends that writes it, the answer ends too.

docs/protocol.md §5. Its pieces are sent by `answer_sender.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any

from service.client.answer_sender import AnswerSender
from service.client.client_answers import BegunAnswer, EndedAnswer, PartKind
from service.client.client_errors import AnswerStopped, ClientError, Conflict
from service.client.client_events import decode, encode
from service.client.exchange import Exchange

_log = logging.getLogger(__name__)

_FAILED_END_S = 10.0
_CANCELLED_END_S = 2.0
# Members see it, so the text of an exception does not go into it.
_REASON = "the assistant failed"
_REASON_CHARACTERS = 500


class Answer:
    """An answer that is being written. Safe for the tasks of one event loop.

    What is written reaches readers in the order of the calls. Set `metadata` to give the message
    some, and `final_text` to replace what was written, for a block that ends by itself. `ended` is
    None until the block's end.
    """

    def __init__(self, begun: BegunAnswer, sender: AnswerSender) -> None:
        self.message_id = begun.message_id
        self.metadata: dict[str, object] = {}
        self.final_text: str | None = None
        self.ended: EndedAnswer | None = None
        self._next_index = begun.next_index
        self._reason: str | None = None
        self._sender = sender

    @property
    def is_continued(self) -> bool:
        """Whether something was written before, as by this program before it was restarted."""
        return self._next_index > 0

    async def write(self, text: str) -> None:
        """Add text to the answer; it is sent soon.

        Waits while the service has not taken the 64 KiB before. Cancelled, it has added nothing.

        Raises:
            AnswerStopped: a member has stopped the answer.
            Conflict: it has ended otherwise (`ANSWER_ENDED`): after 30 s without a request.
            Refused: the service does not take it; 413 when the answer is too long.
            Unavailable: the service could not be reached in time.
            ClientError: see the tree.
        """
        (await self._sender.room()).add_text(text)

    async def write_part(self, kind: PartKind, data: Any) -> None:
        """Add something beside the text: any JSON; raises as `write` does.

        `{"text": …}` is reasoning; `{"id", "name", "text"}` a tool's call with more of its input,
        `{"id", "output"}` its result. Adjacent parts that differ in `text` alone become one.
        """
        (await self._sender.room()).add_part(kind, data)

    def fail(self, reason: str) -> None:
        """Let the answer end as failed when its block ends; members are shown the reason.

        Of a longer one, its first 500 characters.
        """
        self._reason = reason[:_REASON_CHARACTERS]


class _Ending:
    """Ends one answer in the way that its block ended."""

    def __init__(
        self, exchange: Exchange, path: str, answer: Answer, sender: AnswerSender, timeout_s: float
    ) -> None:
        self._exchange = exchange
        self._path = path
        self._answer = answer
        self._sender = sender
        self._timeout_s = timeout_s

    async def complete(self) -> None:
        """Send the rest and end the answer. Raises what prevents it."""
        await self._sender.flush()
        answer = self._answer
        status = "completed" if answer._reason is None else "failed"
        await self._end(
            status=status,
            reason=answer._reason,
            text=answer.final_text,
            metadata=answer.metadata or None,
        )

    async def give_up(self, status: str, *, within_s: float) -> None:
        """End the answer with what was written, as far as that is possible in time.

        Nothing else is said, since that may be what was refused.
        """
        reason = (self._answer._reason or _REASON) if status == "failed" else None
        try:
            async with asyncio.timeout(within_s):
                with contextlib.suppress(ClientError):
                    await self._sender.flush()
                await self._end(status=status, reason=reason)
        except (TimeoutError, ClientError) as error:
            # The service ends it when its lease has run out.
            _log.warning(
                "answer not ended", extra={"path": self._path, "error": type(error).__name__}
            )

    async def _end(self, **said: object) -> None:
        body = encode({name: value for name, value in said.items() if value is not None})
        response = await self._exchange.call(
            "POST", f"{self._path}/end", body=body, timeout_s=self._timeout_s
        )
        self._answer.ended = decode(response, EndedAnswer)


@contextlib.asynccontextmanager
async def answering(
    exchange: Exchange, path: str, begun: BegunAnswer, *, timeout_s: float
) -> AsyncIterator[Answer]:
    """Yield the answer to write, and end it: completed, stopped, or failed with what was written.

    Raises:
        Conflict: it has ended before (`ANSWER_ENDED`).
        ClientError: the rest could not be sent, or the answer not be ended.
    """
    if begun.status != "in_progress":
        raise Conflict(409, "ANSWER_ENDED", f"the answer has ended before: {begun.status}")
    sender = AnswerSender(
        exchange, path, begun.message_id, next_index=begun.next_index, timeout_s=timeout_s
    )
    answer = Answer(begun, sender)
    ending = _Ending(exchange, path, answer, sender, timeout_s)
    try:
        yield answer
        await ending.complete()
    except AnswerStopped as error:
        is_ours = error.message_id == begun.message_id
        await ending.give_up("stopped" if is_ours else "failed", within_s=_FAILED_END_S)
        if not is_ours:
            raise
    except Exception:
        await ending.give_up("failed", within_s=_FAILED_END_S)
        raise
    except BaseException:
        await ending.give_up("failed", within_s=_CANCELLED_END_S)
        raise
    finally:
        await sender.close()
