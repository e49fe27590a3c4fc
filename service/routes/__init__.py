"""The HTTP API, one file per resource (PROTOCOL.md §4)."""
