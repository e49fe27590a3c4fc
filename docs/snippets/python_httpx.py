"""Print each message of a project; after a break, go on after the last one."""

import json
import os
import sys
import time

import httpx

url, token = os.environ["STREAM_URL"], os.environ["TOKEN"]
headers = {"Accept": "text/event-stream", "Authorization": f"Bearer {token}"}
timeout = httpx.Timeout(10, read=45)  # three heartbeats
while True:
    try:
        with httpx.stream("GET", url, headers=headers, timeout=timeout) as response:
            response.raise_for_status()
            block = {}
            for line in response.iter_lines():
                if line:
                    name, _, value = line.partition(": ")
                    block[name] = value
                    continue
                if "id" in block:
                    headers["Last-Event-ID"] = block["id"]
                if block["event"] in ("message.new", "message.replay"):
                    message = json.loads(block["data"])
                    print(message["seq"], message["content"]["text"], flush=True)
                block = {}
    except httpx.TransportError as error:
        print(error, file=sys.stderr)
    time.sleep(1)
