"""`call_http`: an HTTP request as an activity, and how long to wait before one is repeated."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urljoin, urlsplit

HTTP_ACTIVITY = "BuiltIn::HttpActivity"
"""The name in histories, which is Azure's."""
TIMEOUT_S = 100.0
POLL_S = 30.0
"""Unless the server says otherwise by ``Retry-After``."""


def request_shape(
    method: str, uri: str, content: Any, headers: dict[str, str] | None, is_raw_str: bool
) -> dict[str, Any]:
    """Return what the activity is told.

    Raises:
        TypeError: raw content that is no text.
    """
    if is_raw_str and not isinstance(content, str):
        raise TypeError("content must be a str if is_raw_str is set")
    if content is not None and not is_raw_str:
        content = json.dumps(content)
    return {"method": method, "uri": uri, "content": content, "headers": dict(headers or {})}


def http_activity(request: dict[str, Any]) -> dict[str, Any]:
    """Make the request. Any status is an answer; not to get one is a failure."""
    uri = request["uri"]
    if urlsplit(uri).scheme not in ("http", "https"):
        raise ValueError(f"not an HTTP address: {uri!r}")
    content = request["content"]
    headers = request["headers"]
    if content is not None and not any(name.lower() == "content-type" for name in headers):
        headers = headers | {"Content-Type": "application/json"}
    asked = urllib.request.Request(  # noqa: S310 - looked at above
        uri,
        data=None if content is None else content.encode(),
        headers=headers,
        method=request["method"].upper(),
    )
    try:
        answer = urllib.request.urlopen(asked, timeout=TIMEOUT_S)  # noqa: S310
    except urllib.error.HTTPError as error:
        answer = error
    with answer:
        found = dict(answer.headers.items())
        text = answer.read().decode(answer.headers.get_content_charset() or "utf-8", "replace")
    location = answer.headers.get("Location")
    return {
        "statusCode": answer.status,
        "headers": found,
        "content": text,
        "location": None if location is None else urljoin(uri, location),
        "retryAfter": answer.headers.get("Retry-After"),
    }


def seconds_to_next_look(answer: dict[str, Any]) -> float | None:
    """Return how long to wait for what was promised by a 202; None if nothing was."""
    if answer["statusCode"] != 202 or not answer["location"]:
        return None
    said = answer["retryAfter"] or ""
    return float(said) if said.isdecimal() else POLL_S
