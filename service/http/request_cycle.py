"""One request and its response, as the protocol follows them. No connection state lives here."""

from __future__ import annotations

import functools
from typing import Any

from service.http.uvicorn_internals import RequestResponseCycle


class RequestCycle(RequestResponseCycle):
    """A request and its response, with its received bytes counted.

    A response that does not wait for the end of its request's body says `Connection: close`.
    """

    ends_early = False
    # Of the body that was received so far, without its framing.
    received_bytes = 0
    # Of all reads that left the request unfinished: about the body with its framing.
    wire_bytes = 0

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            if self.more_body:
                self.ends_early, self.keep_alive = True, False
        elif self.ends_early and not message.get("more_body", False):
            # With `keep_alive` false uvicorn would close at once. A socket that is closed with
            # unread bytes sends a reset, and a client that is still sending often loses the
            # response then. The protocol closes the connection instead, after a pause.
            self.keep_alive = True
        await super().send(message)

    @functools.cached_property
    def head_bytes(self) -> int:
        """The approximate size of the request's head."""
        scope: Any = self.scope
        return len(scope["raw_path"]) + len(scope["query_string"]) + sum(
            len(name) + len(value) for name, value in scope["headers"]
        )  # fmt: skip


def ignore_response() -> None:
    """Replace `on_response` of a finished cycle.

    uvicorn does so too: otherwise the cycle and its connection reference each other until the
    cycle collector runs.
    """
