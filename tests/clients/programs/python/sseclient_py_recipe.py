"""sseclient-py in a loop that resumes: an event without an id keeps the one before."""

import json
import os
import sys
import time

import httpx
import sseclient

URL = os.environ["STREAM_URL"]
# A read timeout above the heartbeat's interval finds dead connections; httpx has 5 s.
TIMEOUT = httpx.Timeout(10, read=45)

last_id = ""
pause_s = 1.0
while True:
    headers = {"Accept": "text/event-stream"}
    if last_id:
        headers["Last-Event-ID"] = last_id
    try:
        with httpx.stream("GET", URL, headers=headers, timeout=TIMEOUT) as response:
            for event in sseclient.SSEClient(response.iter_bytes()).events():
                last_id = event.id or last_id
                pause_s = int(event.retry or pause_s * 1000) / 1000
                line = {"event": event.event, "id": event.id, "data": event.data}
                print(json.dumps(line), flush=True)
    except httpx.TransportError as error:
        print(repr(error), file=sys.stderr)
    time.sleep(pause_s)
