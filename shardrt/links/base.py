"""What a link is to those who use it, whatever carries it.

A link is a two-way stream of messages. `send` never blocks and never fails: what is sent
within one turn of the loop leaves as one batch, and what is sent on a link that has ended is
dropped, since its end was or will be told by `on_closed`. Messages arrive in order, in
batches; none arrives after `on_closed`, which is called exactly once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias


class Link(Protocol):
    """One end of a link."""

    @property
    def is_open(self) -> bool:
        """Whether sending makes sense."""
        ...

    @property
    def is_congested(self) -> bool:
        """Whether the peer reads more slowly than we write: sending should pause."""
        ...

    def send(self, message: Any) -> None:
        """Send a message, soon."""
        ...

    def close(self) -> None:
        """End the link after what was sent has left, or soon if the peer does not take it."""
        ...


class LinkHandler(Protocol):
    """Whoever listens at one end of a link."""

    def on_messages(self, messages: list[Any]) -> None:
        """Take what arrived. May raise `ProtocolViolation`, which ends the link."""
        ...

    def on_closed(self) -> None:
        """Learn that the link has ended."""
        ...


Accept: TypeAlias = Callable[[Link], LinkHandler]
"""Called with each new link; returns who listens to it."""
