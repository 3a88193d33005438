"""Links within one event loop: the messages themselves pass, nothing is encoded.

What is sent in one turn arrives as one batch in the next, as over a socket, so that neither
side is ever called from within its own `send`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shardrt.links.base import Accept, Link, LinkHandler


class InProcessLink:
    """One end of a pair; made by `connect_in_process`."""

    def __init__(self) -> None:
        self._call_soon = asyncio.get_running_loop().call_soon
        self._handler: LinkHandler
        self._peer: InProcessLink
        self._held: list[Any] = []
        self._open = True

    @property
    def is_open(self) -> bool:
        return self._open

    @property
    def is_congested(self) -> bool:
        return False

    def send(self, message: Any) -> None:
        self._held.append(message)
        if len(self._held) == 1:
            self._call_soon(self._flush)

    def close(self) -> None:
        """End both ends, after what was sent has arrived."""
        if self._open:
            self._call_soon(self._end)

    def _flush(self) -> None:
        messages, self._held = self._held, []
        if self._open and messages:
            self._peer._handler.on_messages(messages)  # noqa: SLF001 - the other half of the pair

    def _end(self) -> None:
        for end in (self, self._peer):
            if end._open:  # noqa: SLF001 - the other half of the pair
                end._open = False  # noqa: SLF001
                end._handler.on_closed()  # noqa: SLF001


def connect_in_process(near: Accept, far: Accept) -> Link:
    """Make a pair of links, each end told to who accepts it; return the near end."""
    one, other = InProcessLink(), InProcessLink()
    one._peer, other._peer = other, one  # noqa: SLF001 - made here
    other._handler = far(other)  # noqa: SLF001
    one._handler = near(one)  # noqa: SLF001
    return one
