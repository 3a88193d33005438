"""The lines of a session to its hosts, and which of them a request takes.

There is a line per URL that the client was given: a link, dialled again whenever it has ended,
after pauses of its own. Hosts say which partitions they serve themselves (`Serving`), and what
concerns one of those goes straight there. All else goes by the *main* line, one and the same for
as long as it is up: the host at its far end knows the way. So what hosts say is only a shortcut.
It may be late or missing, and no answer is right or wrong by the line that it came by.

There is one exception: when the store was replaced and the old one lives on, there may be hosts
with either, and what those of the old one acknowledge is lost. So hosts also say in which *era*
they know the hub to be. Who is behind another one is left at once, as if its link had broken, and
not taken back before it has followed: rather than to ask it, requests wait. The newest era is
remembered for as long as the session lives.

With one line there is nothing to choose, and nothing is asked of its host.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from shardrt.core.ids import partition_of
from shardrt.errors import ConfigInvalid, ConnectionLost, ShardrtError
from shardrt.links.base import Link, LinkHandler
from shardrt.links.messages import Serving, Welcome

if TYPE_CHECKING:
    from collections.abc import Sequence

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

    @property
    def is_busy(self) -> bool:
        """Whether so much is under way that what is sent may gather for a moment."""
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
        self.era: int | None = None
        """In which era it knows the hub to be, likewise; None: it does not tell."""
        self._dial = dial
        self._lines = lines
        self._session = session
        self._ended = asyncio.Event()
        """Set unless there is a link, also one that was left and has not ended yet."""
        self._ended.set()
        self._complaint = ""
        """What was logged last."""

    @property
    def is_calling(self) -> bool:
        return self._session.is_calling

    @property
    def is_waiting(self) -> bool:
        return self._session.is_waiting

    @property
    def is_busy(self) -> bool:
        return self._session.is_busy

    def on_messages(self, messages: list[Any]) -> None:
        self._session.on_messages(self, messages)

    def on_closed(self) -> None:
        self._ended.set()
        if self.link is not None:
            self.link = None
            self._lines.on_down(self)

    async def connect(self) -> None:
        """Dial once. Raises `ShardrtError`; `ConfigInvalid` if it never makes sense."""
        self.serves, self.era = frozenset(), None
        link, welcome = await self._dial(self._session.id, self)
        if not link.is_open:
            raise ConnectionLost("the host hung up at once")
        self._ended.clear()
        try:
            self._lines.admit(self, welcome)
        except ShardrtError:
            link.close()
            raise
        self.link = link
        self._lines.on_up(self, welcome)

    def leave(self) -> None:
        """Be down from now on; it is dialled again once the link has ended."""
        if self.link is not None:
            self.link.close()
            self.link = None

    async def keep(self, backoff: Backoff) -> None:
        """Stay connected until cancelled."""
        while True:
            if self.link is None:
                try:
                    await self.connect()
                    backoff.reset()
                except ShardrtError as error:
                    self._tell(error)
                except Exception:
                    logger.exception("cannot connect")
            await self._ended.wait()
            await asyncio.sleep(backoff.next_s())

    def _tell(self, error: ShardrtError) -> None:
        self._lines.on_trouble(error)
        # It may be heard by nobody otherwise: there are other hosts.
        if isinstance(error, ConfigInvalid) and str(error) != self._complaint:
            self._complaint = str(error)
            logger.error(self._complaint)

    async def closed(self) -> None:
        """Wait for the end of a link that was told to end."""
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
        self._era = 0
        """The newest era of the hub that a host has told of."""
        self._hub: Welcome | None = None
        """To the hub that we are at, of the host that told most about it."""
        self._is_away = False
        """Whether it was logged that there is no host."""
        self._other_hubs: set[str] = set()
        """Ids of those that were there beside it, which it cannot have been replaced by."""
        self._all = [Line(dial, self, session) for dial in dials]
        self._keepers: list[asyncio.Task[None]] = []

    def line_to(self, instance_id: str) -> Line | None:
        """Return the line for a request; one must be up. No id: it is a question."""
        found = self.routes[partition_of(instance_id, len(self.routes))] if instance_id else None
        return found or self.main

    # -- what hosts say ---------------------------------------------------------------------------

    def on_serving(self, line: Line, serving: Serving) -> None:
        """Learn what a host serves by now."""
        line.serves, line.era = frozenset(serving.partitions), serving.era
        if line.link is not None and self.routes:
            self._leave_outdated(line)
            self._reroute(line)
            self._session.on_rerouted()

    def _leave_outdated(self, news: Line) -> None:
        """Do without hosts that are behind, by what one says."""
        self._era = max(self._era, news.era or 0)
        outdated = [each for each in self._all if each.link is not None and self._is_outdated(each)]
        for line in outdated:
            line.leave()
        for line in outdated:
            self.on_down(line)

    def _is_outdated(self, line: Line) -> bool:
        return line.era is not None and line.era < self._era

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

    def admit(self, line: Line, welcome: Welcome) -> None:
        """Take a host that lets us in for one of the hub.

        Raises:
            ConfigInvalid: it is of another one.
            ConnectionLost: it is behind.
        """
        hub = self._hub
        if hub is not None and not _is_same_hub(hub, welcome):
            if self.main is not None or welcome.hub_id in self._other_hubs:
                self._other_hubs |= {welcome.hub_id} - {""}
                raise ConfigInvalid(
                    f"host {welcome.host_id} is of another hub than the others, and is not asked: "
                    "give a client URLs of one hub"
                )
            hub, self._era = None, 0
        if hub is None or welcome.hub_id:
            self._hub = welcome
        if self._is_outdated(line):
            raise ConnectionLost(
                f"host {welcome.host_id} is behind: it knows era {line.era} of the hub, another "
                f"one era {self._era}"
            )

    def on_up(self, line: Line, welcome: Welcome) -> None:
        """Take a line that can be used from now on."""
        self._session.welcome = welcome
        is_first = self.main is None
        if is_first:
            self.main = line
            self.routes = [None] * welcome.partitions if len(self._all) > 1 else []
        self._leave_outdated(line)
        self._reroute(line)
        if is_first:
            if self._is_away:
                self._is_away = False
                logger.warning("a host can be reached again")
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

    def on_trouble(self, error: ShardrtError) -> None:
        """Learn that a host cannot be reached; say so if there is no other: callers only wait."""
        self._session.on_trouble(error)
        if self.main is None and not self._is_away:
            self._is_away = True
            logger.warning("no host can be reached, trying again: %s", error)

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


def _is_same_hub(one: Welcome, other: Welcome) -> bool:
    told = "" not in (one.hub_id, other.hub_id)
    return one.partitions == other.partitions and (not told or one.hub_id == other.hub_id)
