"""A writer whose posts request builds; everything else is in `writer.py`."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from tests.support.history import BuildAcknowledgement, Post
from tests.support.writer import Writer


class _Receipt(msgspec.Struct, rename="camel"):
    build_id: str


class BuildRequester(Writer):
    """Requests builds one after another; repeats each request until the service confirms it."""

    def __init__(
        self,
        name: str,
        base_urls: Sequence[str],
        project_id: str,
        user_id: str,
        *,
        builds_per_s: float,
        seed: int = 0,
        timeout_s: float = 5.0,
        impatience: float = 0.0,
    ) -> None:
        super().__init__(
            name,
            base_urls,
            project_id,
            user_id,
            posts_per_s=builds_per_s,
            seed=seed,
            timeout_s=timeout_s,
            impatience=impatience,
        )
        self.build_acknowledgements: list[BuildAcknowledgement] = []  # every answer

    def _request(self, post: Post) -> tuple[str, dict[str, object]]:
        body: dict[str, object] = {
            "projectId": post.project_id,
            "message": post.text,
            "client_msg_id": post.client_msg_id,
            "mode": "build",
        }
        return "/v1/chat/unified", body

    def _acknowledged(self, post: Post, content: bytes) -> None:
        super()._acknowledged(post, content)
        build_id = msgspec.json.decode(content, type=_Receipt).build_id
        self.build_acknowledgements.append(BuildAcknowledgement(post, build_id))
