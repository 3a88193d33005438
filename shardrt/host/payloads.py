"""What goes into activities and comes out of them: sealed as the app wants it, and bounded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shardrt.core.history import NULL
from shardrt.errors import PayloadTooLarge
from shardrt.orchestration import payload

if TYPE_CHECKING:
    from msgspec import Raw

    from shardrt.host.bounds import Bounds
    from shardrt.orchestration.app import App

DETAILS = "details of a heartbeat"
RESULT = "result of activity"


class Payloads:
    """The payloads of one app's activities."""

    def __init__(self, app: App, bounds: Bounds) -> None:
        self._sealer = app.sealer
        self._bounds = bounds

    def result(self, value: object, name: str) -> Raw:
        """Return what an activity has returned, as it is stored."""
        encoded = payload.encode(value, RESULT, name)
        if self._sealer is None and len(memoryview(encoded)) <= self._bounds.small:
            return encoded
        return self.stored(encoded, f"{RESULT} {name!r}")

    def stored(self, encoded: Raw, what: str) -> Raw:
        """Return a payload as it is stored. Raises `PayloadTooLarge`."""
        if self._sealer is not None:
            encoded = self._sealer.seal(encoded)
        problem = self._bounds.payload(encoded, what)
        if problem is not None:
            raise PayloadTooLarge(problem)
        return encoded

    def open(self, stored: Raw) -> Raw:
        """Return a stored payload as plain JSON."""
        if self._sealer is None or stored is NULL:
            return stored
        return self._sealer.open(stored)
