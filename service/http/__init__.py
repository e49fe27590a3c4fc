"""Bytes and HTTP: the server, its protocol, bodies, errors. Knows nothing of chat."""
