"""A client's side of answers: applies `answer.state`, `message.delta` and the end, in any order.

docs/protocol.md §6. Written apart from `streams/answers`, so that it can find faults there.
"""

from __future__ import annotations

from typing import Any

import msgspec

from streams.model import sse


class ShownAnswer:
    """What a client shows of one answer: everything up to a piece."""

    def __init__(self) -> None:
        self.index = -2
        self.text = ""
        self.parts: list[dict[str, Any]] = []
        self.has_ended = False

    def replace(self, content: dict[str, Any]) -> None:
        """Show a state."""
        self.index = content["index"]
        self.text = content["text"]
        self.parts = content["parts"]

    def add(self, content: dict[str, Any]) -> None:
        """Show the next piece."""
        self.index = content["index"]
        if content["kind"] == "text":
            self.text += content["delta"]
            return
        part = {key: content[key] for key in ("kind", "data")} | {"offset": len(self.text)}
        last = self.parts[-1] if self.parts else {}
        if _growing(last) is not None and _growing(last) == _growing(part):
            text = last["data"]["text"] + part["data"]["text"]
            self.parts[-1] = last | {"data": last["data"] | {"text": text}}
        else:
            self.parts = [*self.parts, part]

    @property
    def said(self) -> tuple[int, str, list[dict[str, Any]]]:
        """Index, text and parts."""
        return self.index, self.text, self.parts


def _growing(part: dict[str, Any]) -> object:
    """Return a part without its text, if it is one that grows."""
    data = part.get("data")
    if not isinstance(data, dict) or not isinstance(data.get("text"), str):
        return None
    return {**part, "data": {key: value for key, value in data.items() if key != "text"}}


class AnswerReader:
    """The answers that one client shows."""

    def __init__(self) -> None:
        self.answers: dict[str, ShownAnswer] = {}

    def take(self, frame: bytes) -> None:
        """Apply one frame of the stream."""
        name, _ = sse.name_and_id(frame)
        if name not in ("answer.state", "message.delta", "message.new"):
            return
        data = msgspec.json.decode(sse.data_of(frame))
        if name == "message.new":
            self.answers.setdefault(data["messageId"], ShownAnswer()).has_ended = True
            return
        content = data["content"]
        shown = self.answers.setdefault(content["messageId"], ShownAnswer())
        if shown.has_ended:
            return
        if name == "answer.state":
            if content["index"] >= shown.index:
                shown.replace(content)
        elif content["index"] == max(shown.index, -1) + 1:
            shown.add(content)
