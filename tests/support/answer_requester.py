"""A writer whose posts ask the assistant, with `stream`; everything else is in `writer.py`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from tests.support.answer_history import AskedAnswer
from tests.support.history import Post
from tests.support.paced_assistant import Script
from tests.support.writer import Writer


class _Receipt(msgspec.Struct, rename="camel"):
    message_id: str
    assistant_message_id: str


class AnswerRequester(Writer):
    """Asks one question after another; repeats each until the service confirms it.

    `script` is the assistant's. `on_asked` is called with each confirmation.
    """

    def __init__(
        self,
        name: str,
        base_urls: Sequence[str],
        project_id: str,
        *,
        answers_per_s: float,
        script: Script,
        on_asked: Callable[[AskedAnswer], None],
        seed: int = 0,
        impatience: float = 0.0,
    ) -> None:
        super().__init__(
            name,
            base_urls,
            project_id,
            name,
            posts_per_s=answers_per_s,
            seed=seed,
            timeout_s=3.0,
            impatience=impatience,
        )
        self.asked: list[AskedAnswer] = []  # every confirmation
        self._script = script
        self._on_asked = on_asked

    def _request(self, post: Post) -> tuple[str, dict[str, object]]:
        body: dict[str, object] = {
            "projectId": post.project_id,
            "message": post.text,
            "client_msg_id": post.client_msg_id,
            "mode": "plan",
            "stream": True,
        }
        return "/v1/chat/unified", body

    def _acknowledged(self, post: Post, content: bytes) -> None:
        super()._acknowledged(post, content)
        receipt = msgspec.json.decode(content, type=_Receipt)
        intended = "".join(self._script(post.text))
        asked = AskedAnswer(receipt.assistant_message_id, receipt.message_id, intended)
        self.asked.append(asked)
        self._on_asked(asked)
