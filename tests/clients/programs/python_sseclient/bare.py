"""sseclient as its README shows it: it reconnects by itself."""

import contextlib
import json
import os
import sys

from sseclient import SSEClient

# It prints errors to standard output, which here carries events only.
events = sys.stdout
with contextlib.redirect_stdout(sys.stderr):
    for event in SSEClient(os.environ["STREAM_URL"]):
        line = {"event": event.event, "id": event.id, "data": event.data}
        print(json.dumps(line), flush=True, file=events)
