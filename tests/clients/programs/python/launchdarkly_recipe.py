"""launchdarkly-eventsource that continues after every error, also a status that is not 200."""

import json
import os

from ld_eventsource import SSEClient
from ld_eventsource.config import ErrorStrategy, RetryDelayStrategy

client = SSEClient(
    os.environ["STREAM_URL"],
    error_strategy=ErrorStrategy.always_continue(),
    retry_delay_strategy=RetryDelayStrategy.default(max_delay=5),
)
for event in client.events:
    line = {"event": event.event, "id": event.last_event_id, "data": event.data}
    print(json.dumps(line), flush=True)
