"""Where calls are sent: an address, and the link to it while there is one."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeAlias

from shardrt.links.base import Accept, Link, LinkHandler

if TYPE_CHECKING:
    from shardrt.links.messages import FromHost

Keep: TypeAlias = Callable[[str, Accept], Coroutine[Any, Any, None]]
"""Keeps a link to an address until it is cancelled."""


def is_peer(address: str) -> bool:
    """Whether an address is another host's, rather than a shard's of this one."""
    return "://" in address


class Upstream:
    """Listens on the links to one address, one after the other."""

    def __init__(
        self,
        address: str,
        on_opened: Callable[[Upstream], None],
        on_messages: Callable[[list[FromHost]], None],
        on_lost: Callable[[Upstream], None],
    ) -> None:
        self.address = address
        self.is_peer = is_peer(address)
        self.is_wanted = not self.is_peer
        """Whether there shall be a link: to a peer only once there is something to send."""
        self.is_to_be_nudged = False
        """Whether the peer shall look at the hub once there is a link."""
        self.needed_until = 0.0
        """Until when the link is kept although no route leads here."""
        self.link: Link | None = None
        self.on_messages = on_messages
        self._on_opened = on_opened
        self._on_lost = on_lost

    @property
    def may_serve(self) -> bool:
        """Whether there is a link, or no attempt to make one so far."""
        return self.link is not None or not self.is_wanted

    def accept(self, link: Link) -> LinkHandler:
        self.link = link
        self._on_opened(self)
        return self

    def on_closed(self) -> None:
        self.link = None
        self._on_lost(self)
