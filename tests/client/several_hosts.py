"""Hosts at the far ends of a session's lines, which do what a test says, in virtual time."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from functools import partial, wraps
from random import Random
from typing import TYPE_CHECKING, Any

from msgspec import Raw

from shardrt.client.session import Session
from shardrt.core import requests as r
from shardrt.links.backoff import Backoff
from shardrt.links.inprocess import connect_in_process
from shardrt.links.messages import Accepted, Answer, Serving, Welcome
from shardrt.testing.virtual import pass_time, run_virtual
from tests.links.ends import End

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    from shardrt.client.lines import Asker
    from shardrt.errors import ShardrtError
    from shardrt.links.base import Link

PARTITIONS = 4
STARTED = Raw(b'["a","e"]')
ENDED = Raw(
    b'{"instance_id":"a","execution_id":"e","name":"n","status":"Completed",'
    b'"created_at":1,"updated_at":1,"partition":0}'
)
SOON_S = 0.001
"""Messages have arrived by then, and pauses are longer."""


class Slow:
    """The client's end of a link whose peer does not run: it is told to end, and ends later."""

    is_congested = False

    def __init__(self, link: Link) -> None:
        self.send, self._close = link.send, link.close
        self.is_open = True

    def close(self) -> None:
        asyncio.get_running_loop().call_later(1.0, self._close)


class Host(End):
    """A host of the hub, which serves what it is told to, and says so if it is not old."""

    def __init__(
        self,
        *serves: int,
        partitions: int = PARTITIONS,
        is_old: bool = False,
        name: str = "host",
        hub: str = "",
    ) -> None:
        super().__init__()
        self.serves: tuple[int, ...] = serves
        self.era: int | None = 0
        self.is_old = is_old
        self.welcome = Welcome(1, "0", partitions, name, 1000, hub)
        self.trouble: ShardrtError | None = None
        self.dialled_s: list[float] = []
        self.is_slow = False
        self.is_up = asyncio.Event()
        self.is_up.set()

    async def dial(self, session_id: str, session: Asker) -> tuple[Link, Welcome]:
        self.dialled_s.append(asyncio.get_running_loop().time())
        await self.is_up.wait()
        if self.trouble is not None:
            raise self.trouble
        link = connect_in_process(lambda _: session, self.accept)
        if not self.is_old:
            self.say(*self.serves)
            await asyncio.sleep(0)  # it comes with the welcome
        return Slow(link) if self.is_slow else link, self.welcome

    def say(self, *partitions: int) -> None:
        self.serves = partitions
        self.link.send(Serving(partitions, self.era))

    def answer(self, *seqs: int) -> None:
        for seq in seqs:
            self.link.send(Answer(seq, STARTED))

    def tell_accepted(self, *seqs: int) -> None:
        self.link.send(Accepted(seqs))

    def end(self, *seqs: int) -> None:
        """Answer as when an instance has ended."""
        for seq in seqs:
            self.link.send(Answer(seq, ENDED))

    def refuse(self, seq: int, code: str = "InstanceExists") -> None:
        self.link.send(Answer(seq, refusal=r.Refusal(code, "no")))

    def taken(self) -> list[int]:
        """Return the numbers of what has come since the last look."""
        seqs = [message.seq for message in self.messages]
        self.messages.clear()
        return seqs


def start(*, fresh: bool = False) -> r.Start:
    return r.Start("hello", fresh=fresh)


async def started(session: Session, *instance_ids: str) -> list[asyncio.Future[Raw]]:
    """Ask for instances, and wait until a host has heard it."""
    calls = [session.submit(each, start()) for each in instance_ids]
    await pass_time(SOON_S)
    return calls


def virtual(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @wraps(test)
    def run(**fixtures: Any) -> None:
        run_virtual(test(**fixtures))

    return run


@asynccontextmanager
async def opened(*hosts: Host, **options: Any) -> AsyncIterator[Session]:
    """Open a session with a line to each."""
    backoff = partial(Backoff, rng=Random(1))
    session = Session(*(host.dial for host in hosts), backoff=backoff, **options)
    await session.open()
    await pass_time(SOON_S)
    try:
        yield session
    finally:
        await session.close()
