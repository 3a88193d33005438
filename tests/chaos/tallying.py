"""The part of the load that goes to entities: numbered signals and calls, one after the other."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from shardrt.errors import AnswerForgotten, ShardrtError
from tests.chaos.bank import TALLIES, Tally

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

    from shardrt import Client

PAUSE_S = 0.1
"""Short, so that whoever is killed has something under way."""
CALL_EVERY = 3
"""One in so many is a call, whose answer is awaited; the others are signals."""


@dataclass
class TallyLog:
    """What the sender to one tally knows about its numbers."""

    key: str
    acknowledged: list[int] = field(default_factory=list)
    unknown: list[int] = field(default_factory=list)
    """Those that ended in an error, which may have arrived or not."""
    answers: dict[int, int] = field(default_factory=dict)
    """For each number that was called with: how many the tally said it had then."""


class Tallying:
    """Sends to every tally until told to stop."""

    def __init__(
        self, clients: Sequence[Client], rng: random.Random, note: Callable[[Exception], None]
    ) -> None:
        self._clients = clients
        self._rng = rng
        self._note = note
        self.logs = [TallyLog(key) for key in TALLIES]

    async def run(self, stop: asyncio.Event) -> None:
        await asyncio.gather(
            *(
                self._send(log, self._clients[number % len(self._clients)], stop)
                for number, log in enumerate(self.logs)
            )
        )

    async def _send(self, log: TallyLog, client: Client, stop: asyncio.Event) -> None:
        number = 0
        while not stop.is_set():
            await self._tell(log, client, number)
            number += 1
            await asyncio.sleep(self._rng.uniform(0, PAUSE_S))

    async def _tell(self, log: TallyLog, client: Client, number: int) -> None:
        entity = f"@tally@{log.key}"
        try:
            if number % CALL_EVERY:
                await client.signal_entity(entity, Tally.mark, number)
            else:
                log.answers[number] = await client.call_entity(entity, Tally.mark, number)
        except AnswerForgotten as error:
            self._note(error)  # but it was carried out
        except (ShardrtError, OSError, TimeoutError) as error:
            self._note(error)
            log.unknown.append(number)
            return
        log.acknowledged.append(number)
