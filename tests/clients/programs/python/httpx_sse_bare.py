"""httpx-sse as its README begins: one connection."""

import json
import os

import httpx
from httpx_sse import connect_sse

with httpx.Client() as client:
    with connect_sse(client, "GET", os.environ["STREAM_URL"]) as event_source:
        for sse in event_source.iter_sse():
            print(json.dumps({"event": sse.event, "id": sse.id, "data": sse.data}), flush=True)
