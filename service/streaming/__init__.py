"""Open streams: their connections, what is written to them, and when they end."""
