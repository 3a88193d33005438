"""The lines of a session to its hosts, and which of them a request takes.

There is a line per URL that the client was given: a link, dialled again whenever it has ended,
after pauses of its own. Hosts say which partitions they serve themselves (`Serving`), and what
concerns one of those goes straight there. All else goes by the *main* line, one and the same for
as long as it is up: the host at its far end knows the way. So what hosts say is only a shortcut.
It may be late or missing, and no answer is right or wrong by the line that it came by.

With one line there is nothing to choose, and nothing is asked of its host.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from shardrt.core.ids import partition_of
from shardrt.errors import ConnectionLost, ShardrtError
from shardrt.links.base import Link, LinkHandler
from shardrt.links.messages import Welcome

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from shardrt.client.session import Session
    from shardrt.links.backoff import Backoff

logger = logging.getLogger(__name__)


class Asker(LinkHandler, Protocol):
    """Who listens at a client's end of a link."""

    @property
    def is_calling(self) -> bool:
        """Whether a host owes it an answer that should not take long."""
        ...

    @property
    def is_waiting(self) -> bool:
        """Whether a host owes it any answer."""
        ...


Dial: TypeAlias = Callable[[str, Asker], Awaitable[tuple[Link, Welcome]]]
"""Opens a link for a session id, on which it is told about answers and the end."""


class Line:
    """The way to one host. Implements `Asker`."""

    def __init__(self, dial: Dial, lines: Lines, session: Session) -> None:
        self.link: Link | None = None
        """None: it is down."""
        self.serves: frozenset[int] = frozenset()
        """The partitions that its host has said it serves, since this link was dialled."""
        self._dial = dial
        self._lines = lines
        self._session = session
        self._ended = asyncio.Event()
        """Set when the current link has ended."""

    @property
    def is_calling(self) -> bool:
        return self._session.is_calling

    @property
    def is_waiting(self) -> bool:
        return self._session.is_waiting

    def on_messages(self, messages: list[Any]) -> None:
        self._session.on_messages(self, messages)

    def on_closed(self) -> None:
        if self.link is not None:
            self.link = None
            self._ended.set()
            self._lines.on_down(self)

    async def connect(self) -> None:
        """Dial once. Raises `ShardrtError`."""
        self._ended.clear()
        self.serves = frozenset()
        link, welcome = await self._dial(self._session.id, self)
        if not link.is_open:
            raise ConnectionLost("the host hung up at once")
        if not self._lines.is_same_hub(welcome):
            link.close()
            raise ConnectionLost(f"host {welcome.host_id} is of another hub than the others")
        self.link = link
        self._lines.on_up(self, welcome)

    async def keep(self, backoff: Backoff) -> None:
        """Stay connected until cancelled."""
        while True:
            if self.link is None:
                try:
                    await self.connect()
                    backoff.reset()
                except ShardrtError as error:
                    self._session.on_trouble(error)
                except Exception:
                    logger.exception("cannot connect")
            if self.link is not None:
                await self._ended.wait()
            await asyncio.sleep(backoff.next_s())

    async def closed(self) -> None:
        """Wait for the end of a link that was told to end."""
        if self.link is not None:
            await self._ended.wait()


class Lines:
    """All lines of a session.

    Args:
        session: told when the first is up, when one is down, and when requests go elsewhere.
        dials: one per line.
    """

    def __init__(self, session: Session, dials: Sequence[Dial]) -> None:
        self.main: Line | None = None
        """Up, and taken by what no host serves as far as is known; None: all are down."""
        self.routes: list[Line | None] = []
        """By partition, the line to the host that serves it, if one is known; it is up. Empty with
        a single line."""
        self._session = session
        self._all = [Line(dial, self, session) for dial in dials]
        self._keepers: list[asyncio.Task[None]] = []

    def line_to(self, instance_id: str) -> Line | None:
        """Return the line for a request; one must be up. No id: it is a question."""
        found = self.routes[partition_of(instance_id, len(self.routes))] if instance_id else None
        return found or self.main

    # -- what hosts say ---------------------------------------------------------------------------

    def on_serving(self, line: Line, partitions: Iterable[int]) -> None:
        """Learn what a host serves by now."""
        line.serves = frozenset(partitions)
        if line.link is not None and self.routes:
            self._reroute(line)
            self._session.on_rerouted()

    def on_unserved(self, line: Line, instance_id: str) -> None:
        """Learn that a host cannot reach who serves an instance, whatever it has said."""
        if not self.routes or not instance_id:
            return
        partition = partition_of(instance_id, len(self.routes))
        if self.routes[partition] is line:
            line.serves -= {partition}
            up = [each for each in self._all if each.link is not None]
            self.routes[partition] = next((each for each in up if partition in each.serves), None)

    def _reroute(self, news: Line) -> None:
        self.routes = [self._route(each, news) for each in range(len(self.routes))]

    def _route(self, partition: int, news: Line) -> Line | None:
        """Return the way to a partition after what a line has said last, or its end."""
        if news.link is not None and partition in news.serves:
            return news
        before = self.routes[partition]
        if before is not news:
            return before
        up = [each for each in self._all if each.link is not None]
        # Nobody else has said that it serves it so far: its last owner will know first who does.
        return next((each for each in up if partition in each.serves), news if news in up else None)

    # -- links ----------------------------------------------------------------------------------

    def is_same_hub(self, welcome: Welcome) -> bool:
        """Whether a host that lets us in may be of the hub of the others, if one is up."""
        return len(self.routes) in (0, welcome.partitions)

    def on_up(self, line: Line, welcome: Welcome) -> None:
        """Take a line that can be used from now on."""
        self._session.welcome = welcome
        is_first = self.main is None
        if is_first:
            self.main = line
            self.routes = [None] * welcome.partitions if len(self._all) > 1 else []
        self._reroute(line)
        if is_first:
            self._session.on_up()
        else:
            self._session.on_rerouted()

    def on_down(self, line: Line) -> None:
        """Do without a line whose link has ended."""
        if self.main is line:
            self.main = next((each for each in self._all if each.link is not None), None)
        if self.main is None:
            self.routes = []  # another hub may have come when there is a host again
        self._reroute(line)
        self._session.on_down(line)

    async def connect(self) -> None:
        """Open the first line that can be, trying each once.

        Raises:
            ConnectionLost: no host can be reached.
            ShardrtError: another reason by which a host cannot be used.
        """
        for line in self._all:
            try:
                await line.connect()
            except ConnectionLost:
                if line is self._all[-1]:
                    raise
            else:
                return

    def keep(self, backoff: Callable[[], Backoff]) -> None:
        """Keep all lines up from now on, each after pauses of its own, until `close`."""
        # Not of a task group: they live from `open` to `close` of the session, which may be called
        # by different tasks. `closed` awaits them.
        self._keepers = [asyncio.create_task(line.keep(backoff())) for line in self._all]

    def close(self) -> None:
        """End all links, and dial no more."""
        for line in self._all:
            if line.link is not None:
                line.link.close()
        for keeper in self._keepers:
            keeper.cancel()

    async def closed(self) -> None:
        """Wait for the end of all."""
        await asyncio.gather(*self._keepers, return_exceptions=True)
        for line in self._all:
            await line.closed()
