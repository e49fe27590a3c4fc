"""The conformance suite of SSE clients: real client libraries, judged on a service under faults.

`python -m tests.clients` runs it; `docs/clients.md` says what is measured and how another service
is pointed at. Each client is a small program in `programs/`, listed in `catalogue/`.
"""
