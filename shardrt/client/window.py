"""How many starts a client has under way.

Additive increase, multiplicative decrease, as TCP finds its share of a link that it does not
know (RFC 5681): a refusal as overloaded halves the number, each start that is taken adds a
little. Without that, clients keep a host that has more to do than it can busy with refusing.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from shardrt.client.pending import Pending

LIMIT_MAX = 1024.0
"""More than keep a host busy. Beyond it starts would only wait in sockets, and a refusal would
come too late."""
LIMIT_MIN = 8.0
AGE_S = 1.0
"""A start that was sent so long ago does not count: its partition may be without an owner, which
must not hold up those of others."""
CUT_INTERVAL_S = 0.1
"""Refusals within so long are of one burst, and count once."""
FORGET_S = 10.0
"""Without a refusal for so long a host is not overloaded any more."""
HOLD_S = 0.5
"""How long a refused start keeps its place, and others are held back if none ends before."""
TOO_MUCH = "as many starts are under way as the host can take, so this one was not sent"


class StartWindow:
    """The starts of one session that are under way, and those that are held back.

    Args:
        loop: the time of which counts.
        send: called for each start that was held back, once there is room; False if it cannot.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, send: Callable[[Pending], bool]) -> None:
        self.limit = LIMIT_MAX
        self.held: deque[Pending] = deque()
        """In order, those that were refused as well."""
        self._loop = loop
        self._send = send
        self._sent: deque[Pending] = deque()
        """Those under way, in order, and among them some that are no more."""
        self._under_way = 0
        self._cut_s: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_open(self) -> bool:
        """Whether a new start may be sent, with none before it."""
        return not self.held and self.has_room

    @property
    def has_room(self) -> bool:
        """Whether another start may be sent."""
        if self._under_way + 1 > self.limit:
            now_s = self._loop.time()
            self._let_go_before(now_s - AGE_S)
            self._forgive(now_s)
        return self._under_way + 1 <= self.limit

    def entered(self, start: Pending) -> None:
        """Note that a start was sent."""
        start.in_window = True
        start.sent_s = now_s = self._loop.time()
        self._under_way += 1
        self._sent.append(start)
        self._let_go_before(now_s - AGE_S)

    def left(self, start: Pending) -> None:
        """Note that a start is no longer under way, whatever became of it."""
        self._let_go(start)
        if self.held:
            self.send_held()

    def taken(self) -> None:
        """Note that the host took a start."""
        if self._cut_s is not None:
            self.limit = min(LIMIT_MAX, self.limit + 1 / self.limit)
            self._forgive(self._loop.time())

    def refused(self, start: Pending) -> None:
        """Note that the host refused a start as overloaded."""
        now_s = self._loop.time()
        if self._cut_s is None or now_s - self._cut_s > CUT_INTERVAL_S:
            self._cut_s = now_s
            self.limit = max(LIMIT_MIN, min(self._under_way, self.limit) / 2)
        if start.in_window:
            # Its place stays taken for a while, or the next one would be refused as well.
            start.in_window = False
            self._loop.call_later(HOLD_S, self._give_back)

    def hold(self, start: Pending) -> None:
        """Keep a start that is not under way for later."""
        start.held = True
        self.held.append(start)
        if self._timer is None:
            self._timer = self._loop.call_later(HOLD_S, self._wake)

    def close(self) -> None:
        """Send nothing more."""
        if self._timer is not None:
            self._timer.cancel()

    def send_held(self) -> None:
        """Send those that there is room for."""
        while self.held and self.has_room:
            start = self.held.popleft()
            start.held = False
            if not self._send(start):
                start.held = True
                self.held.appendleft(start)
                return

    def _give_back(self) -> None:
        self._under_way -= 1
        self.send_held()

    def _forgive(self, now_s: float) -> None:
        if self._cut_s is not None and now_s - self._cut_s > FORGET_S:
            self._cut_s, self.limit = None, LIMIT_MAX

    def _let_go(self, start: Pending) -> None:
        start.in_window = False
        self._under_way -= 1

    def _let_go_before(self, time_s: float) -> None:
        sent = self._sent
        while sent and not (sent[0].in_window and sent[0].sent_s > time_s):
            start = sent.popleft()
            if start.in_window:
                self._let_go(start)

    def _wake(self) -> None:
        self._timer = None
        self.send_held()
        if self.held:
            self._timer = self._loop.call_later(HOLD_S, self._wake)
