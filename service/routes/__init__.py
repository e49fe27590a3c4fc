"""The HTTP API, one file per resource (docs/protocol.md §4)."""
