"""The common form of error responses, docs/protocol.md §4."""

from __future__ import annotations

import httpx


def checked_error(response: httpx.Response, status: int, code: str) -> dict[str, object]:
    """Check the form of an error response and return its body."""
    body: dict[str, object] = response.json()
    assert response.status_code == status, body
    assert response.headers["content-type"].startswith("application/json")
    assert body["code"] == code
    assert isinstance(body["error"], str)
    assert body["requestId"] == response.headers["x-request-id"]
    assert set(body) <= {"error", "code", "details", "requestId"}
    assert "Traceback" not in response.text
    return body
