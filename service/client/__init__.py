"""A client of the service for Python programs: `from service.client import Client`.

Stands apart: it imports httpx and nothing of the rest, so that a program which only talks to a
service loads no server, no driver and no web framework.
"""

from service.client.block_parser import Block
from service.client.client import Client
from service.client.client_errors import (
    AccessDenied,
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
    "BadRequest",
    "Block",
    "Build",
    "Client",
    "ClientClosed",
    "ClientError",
    "Conflict",
    "Content",
    "Event",
    "FollowObserver",
    "Message",
    "Page",
    "ProtocolViolation",
    "Receipt",
    "Refused",
    "StreamEnded",
    "TokenFailed",
    "TooLarge",
    "Unauthenticated",
    "Unavailable",
]
