"""httpx-sse with reconnects, after its README's "Handling reconnections".

The README decorates a generator with `stamina.retry`, which does not see errors of an iteration,
and takes a clean end as final; the loop does both. Id and pause are kept as the README has it.
"""

import json
import os
import sys
import time
from collections.abc import Iterator

import httpx
from httpx_sse import ServerSentEvent, SSEError, connect_sse


def iter_sse_retrying(client: httpx.Client, url: str) -> Iterator[ServerSentEvent]:
    last_event_id = ""
    reconnection_delay = 1.0
    while True:
        headers = {"Last-Event-ID": last_event_id} if last_event_id else {}
        try:
            with connect_sse(client, "GET", url, headers=headers) as event_source:
                for sse in event_source.iter_sse():
                    last_event_id = sse.id
                    if sse.retry is not None:
                        reconnection_delay = sse.retry / 1000
                    yield sse
        except (httpx.TransportError, SSEError) as error:
            print(repr(error), file=sys.stderr)
        time.sleep(reconnection_delay)


# A read timeout above the heartbeat's interval finds dead connections; httpx has 5 s.
with httpx.Client(timeout=httpx.Timeout(10, read=45)) as client:
    for sse in iter_sse_retrying(client, os.environ["STREAM_URL"]):
        print(json.dumps({"event": sse.event, "id": sse.id, "data": sse.data}), flush=True)
