"""The load: instances of all kinds at a bounded rate, and what their client was told.

The client outlives everything that is killed, so its memory is the log: what it holds as
acknowledged must turn out to be true.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from shardrt.errors import (
    InstanceFinished,
    InstanceNotFound,
    OrchestrationFailed,
    OrchestrationTerminated,
    ShardrtError,
)
from tests.chaos.app import SENDERS, Item
from tests.chaos.kinds import KINDS, Kind, Sent
from tests.chaos.tallying import Tallying

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from shardrt import Client

STARTS_PER_S = 20.0
OPEN_MAX = 200
"""Instances in flight. While the host is away the load waits instead of piling up."""
ITEMS_MAX = 6
RETRY_PAUSE_S = 0.2
FINAL_ANSWERS = (InstanceNotFound, OrchestrationFailed, OrchestrationTerminated)
"""What the wait for an acknowledged instance must never end with."""


@dataclass
class Instance:
    """An instance, as its client knows it."""

    kind: Kind
    instance_id: str
    client: Client
    acknowledged: bool = False
    """Whether its start was acknowledged."""
    ended: bool = False
    ended_s: float = 0.0
    """When, by the monotonic clock."""
    wrong: str = ""
    result: Any = None
    sent: Sent = field(default_factory=Sent)


class Load:
    """Starts, feeds and awaits instances until told to stop, through several clients in turn."""

    def __init__(self, clients: Sequence[Client], rng: random.Random) -> None:
        self._clients = itertools.cycle(clients)
        self._rng = rng
        self.instances: list[Instance] = []
        self.errors: Counter[str] = Counter()
        """Errors that the client was given; all of them are allowed while things are killed."""
        self.tallying = Tallying(clients, rng, self._note)

    async def run(self, stop: asyncio.Event, drain_s: float) -> None:
        """Start instances until `stop`, then give all of them `drain_s` to end."""
        room = asyncio.Semaphore(OPEN_MAX)
        tasks = [asyncio.create_task(self.tallying.run(stop))]
        while not stop.is_set():
            await room.acquire()
            task = asyncio.create_task(self._live(self._next()))
            task.add_done_callback(lambda _: room.release())
            tasks.append(task)
            await asyncio.sleep(self._rng.uniform(0, 2 / STARTS_PER_S))
        _, late = await asyncio.wait(tasks, timeout=drain_s)
        for task in late:
            task.cancel()
        await asyncio.wait(tasks)
        for task in tasks:
            if not task.cancelled():
                task.result()

    def _next(self) -> Instance:
        number = len(self.instances)
        kind = KINDS[number % len(KINDS)]
        instance = Instance(kind, f"{kind.name}-{number}", next(self._clients))
        self.instances.append(instance)
        return instance

    async def _live(self, instance: Instance) -> None:
        await self._start(instance)
        if not instance.acknowledged:
            return
        if instance.kind.has_senders:
            numbers = [self._rng.randint(1, ITEMS_MAX) for _ in range(SENDERS)]
            senders = (self._send(instance, *pair) for pair in enumerate(numbers))
            await asyncio.gather(*senders)
        result = await self._result(instance)
        instance.ended, instance.ended_s = True, time.monotonic()
        if isinstance(result, Exception):
            instance.wrong = f"{type(result).__name__}: {result}"
        else:
            instance.result = result
            instance.wrong = instance.wrong or instance.kind.wrong(result, instance.sent)

    async def _start(self, instance: Instance) -> None:
        """Start an instance. If the outcome is an error, leave it at that."""
        kind = instance.kind
        try:
            await instance.client.start(kind.name, kind.input, instance_id=instance.instance_id)
        except (ShardrtError, OSError, TimeoutError) as error:
            self._note(error)
        else:
            instance.acknowledged = True

    async def _send(self, instance: Instance, sender: int, count: int) -> None:
        """Send numbered events, one after the other, and a last one until it has arrived."""
        for number in range(count):
            pause_s = self._rng.uniform(0, 0.3)
            known = await self._raise(instance, Item(sender, number))
            log = instance.sent.acknowledged if known else instance.sent.unknown
            log.setdefault(sender, []).append(number)
            await asyncio.sleep(pause_s)
        while not await self._raise(instance, Item(sender, count, last=True)):  # noqa: ASYNC110
            await asyncio.sleep(RETRY_PAUSE_S)

    async def _raise(self, instance: Instance, item: Item) -> bool:
        """Raise an event; return whether it was acknowledged."""
        try:
            await instance.client.raise_event(instance.instance_id, "item", item)
        except InstanceFinished:
            # Only the repetition of a last item can come too late.
            if not item.last:
                instance.wrong = f"had ended before {item}"
        except InstanceNotFound:
            instance.wrong = f"was gone before {item}"
        except (ShardrtError, OSError, TimeoutError) as error:
            self._note(error)
            return False
        return True

    async def _result(self, instance: Instance) -> Any:
        """Wait for the result, however often the way there breaks."""
        while True:
            try:
                return await instance.client.handle(instance.instance_id).result()
            except FINAL_ANSWERS as error:
                return error
            except (ShardrtError, OSError, TimeoutError) as error:
                self._note(error)
                await asyncio.sleep(RETRY_PAUSE_S)

    def _note(self, error: Exception) -> None:
        self.errors[f"{type(error).__name__}: {str(error)[:80]}"] += 1
