"""What a host tells clients that know several: which partitions it serves itself, in which era.

It says nothing about other hosts. Those may be at addresses that a client cannot use, and a
client that was given them hears it from each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from shardrt.cluster.upstream import is_peer
from shardrt.links.messages import Serving

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shardrt.links.base import Link


class Announcer:
    """Keeps those who have asked up to date."""

    def __init__(self) -> None:
        self._serving = Serving((), 0)
        self._links: dict[Link, None] = {}

    def join(self, link: Link) -> None:
        """Tell a client now, and whenever it changes."""
        self._links[link] = None
        link.send(self._serving)

    def leave(self, link: Link) -> None:
        """Forget a client, if it has asked at all."""
        self._links.pop(link, None)

    def set_routes(self, targets: Sequence[str | None], era: int = 0) -> None:
        """Adopt who serves what (see `links.control.Routes`), and tell what is new of it."""
        ours = (p for p, target in enumerate(targets) if target is not None and not is_peer(target))
        serving = Serving(tuple(ours), era)
        if serving != self._serving:
            self._serving = serving
            for link in self._links:
                link.send(serving)
