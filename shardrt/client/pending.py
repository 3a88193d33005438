"""What a session has asked and has no answer to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio

    from msgspec import Raw

    from shardrt.client.lines import Line
    from shardrt.client.shared import Shared
    from shardrt.core.requests import Refusal


class Pending:
    """A request without an answer so far."""

    __slots__ = (
        "attempts",
        "deadline",
        "elsewhere",
        "future",
        "held",
        "in_window",
        "instance_id",
        "line",
        "refusal",
        "request",
        "sent_s",
        "seq",
        "wants_end",
    )

    def __init__(
        self,
        seq: int,
        instance_id: str,
        request: Any,
        deadline: float | None,
        future: asyncio.Future[Raw] | Shared,
        *,
        wants_end: bool = False,
    ) -> None:
        self.seq = seq
        self.instance_id = instance_id
        self.request = request
        """A `Request`, or a `Question` (then `instance_id` is empty)."""
        self.deadline = deadline
        """Loop time; None: waits for ever."""
        self.future = future
        self.wants_end = wants_end
        """A start that may be answered by the end."""
        self.attempts = 0
        """How often it was sent."""
        self.line: Line | None = None
        """By which it was sent last; None: it is to be sent."""
        self.elsewhere: tuple[Line, ...] = ()
        """Other lines that are up and by which it was sent before, without an answer so far."""
        self.refusal: Refusal | None = None
        """Why it was refused last, although it may be tried again."""
        self.in_window = False
        """A start that is under way, since `sent_s`."""
        self.sent_s = 0.0
        self.held = False
        """A start that is not, because the host has too much to do."""
