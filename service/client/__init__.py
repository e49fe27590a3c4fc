"""A client of the service for Python programs: `from service.client import Client`.

Stands apart: it imports httpx and nothing of the rest, so that a program which only talks to a
service loads no server, no driver and no web framework.
"""

from service.client.answer_so_far import AnswerSoFar
from service.client.answering import Answer
from service.client.block_parser import Block
from service.client.client import Client
from service.client.client_answers import (
    AnswerState,
    AnswerView,
    BegunAnswer,
    Delta,
    EndedAnswer,
    Part,
    PartKind,
    Piece,
)
from service.client.client_errors import (
    AccessDenied,
    AnswerStopped,
    BadRequest,
    ClientClosed,
    ClientError,
    Conflict,
    ProtocolViolation,
    Refused,
    StreamEnded,
    TokenFailed,
    TooLarge,
    Unauthenticated,
    Unavailable,
)
from service.client.client_events import Build, Content, Event, Message, Page, Receipt
from service.client.following import FollowObserver

__all__ = [
    "AccessDenied",
    "Answer",
    "AnswerSoFar",
    "AnswerState",
    "AnswerStopped",
    "AnswerView",
    "BadRequest",
    "BegunAnswer",
    "Block",
    "Build",
    "Client",
    "ClientClosed",
    "ClientError",
    "Conflict",
    "Content",
    "Delta",
    "EndedAnswer",
    "Event",
    "FollowObserver",
    "Message",
    "Page",
    "Part",
    "PartKind",
    "Piece",
    "ProtocolViolation",
    "Receipt",
    "Refused",
    "StreamEnded",
    "TokenFailed",
    "TooLarge",
    "Unauthenticated",
    "Unavailable",
]
