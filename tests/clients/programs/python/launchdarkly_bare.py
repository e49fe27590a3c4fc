"""launchdarkly-eventsource in its simplest configuration: a URL."""

import json
import os

from ld_eventsource import SSEClient

for event in SSEClient(os.environ["STREAM_URL"]).events:
    # `event.last_event_id` is what a reconnect would send; an event has no id of its own.
    line = {"event": event.event, "id": event.last_event_id, "data": event.data}
    print(json.dumps(line), flush=True)
