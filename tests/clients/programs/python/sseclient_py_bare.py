"""sseclient-py as its README shows it with httpx: one connection."""

import json
import os

import httpx
import sseclient

with httpx.stream("GET", os.environ["STREAM_URL"]) as response:
    for event in sseclient.SSEClient(response.iter_bytes()).events():
        print(json.dumps({"event": event.event, "id": event.id, "data": event.data}), flush=True)
