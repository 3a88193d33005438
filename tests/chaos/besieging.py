"""What is done to the hosts of a cluster, one blow at a time, in an order that a seed decides.

After each blow the watcher must have seen every partition owned again before the next one falls, so
what it measures is due to that blow. Freezes of 30 TTL are the exception: they last while other
blows fall on the other hosts.
"""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from tests.chaos.cluster import PARTITIONS, TTL_S, Cluster, Member, frozen_for, pids_of
from tests.chaos.monkey import RESTART_TIMEOUT_S
from tests.chaos.proxy import IN, OUT
from tests.serving import DEATH_TIMEOUT_S, alive
from tests.waiting import eventually

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from tests.chaos.watcher import Watcher

PAUSE_S = (0.2, 1.5)
AWAY_S = (0.0, 2 * TTL_S)
"""How long a killed host stays away. It may be back before its lease is over, or after."""
BROKEN_S = (1.5 * TTL_S, 3 * TTL_S)
"""How long a way is broken."""
WHOLE_SHARES = 0.7
"""How often a blow waits until its victim has its share."""
SHARE_S_MAX = 10.0
"""For how long. A share may come later on a slow machine."""
SERVES_S_MAX = 15.0
"""How long, after that, it may take until it serves anything. A statement to the store is given up
after 40 s: one that hangs must show."""
ROLES = ("shard", "gateway", "supervisor")
LONG_TTLS = 30.0

DECK = (
    "kill host",
    *(f"kill {role}" for role in ROLES),
    *(f"freeze {what} {ttls:g}" for what in ("host", "process") for ttls in (0.5, 1.5, 3)),
    "cut store",
    "hold store",
    "cut peers",
    "hold peers",
    "mute peers",
    "restart all",
)
MORE_WITH_THREE = (
    f"freeze host {LONG_TTLS:g}",
    f"freeze process {LONG_TTLS:g}",
    "kill two",
)
"""What leaves one host of three while it lasts."""
UNPLUGGING = ("pull cable", "kill host", "pull cable", "restart all", "pull cable")
"""For hosts with networks of their own."""


class Siege:
    """Plays cards until the time is over and each was played."""

    def __init__(
        self, cluster: Cluster, watcher: Watcher, rng: random.Random, deck: Sequence[str]
    ) -> None:
        self._cluster = cluster
        self._watcher = watcher
        self._rng = rng
        self._long: tuple[Member, asyncio.Task[None]] | None = None
        self.deck = deck
        self.blows: Counter[str] = Counter()

    async def run(self, over: asyncio.Event) -> None:
        cards: list[str] = []
        while not over.is_set() or set(self.blows) != set(self.deck):
            cards = cards or self._shuffled()
            card = cards.pop(0)
            await asyncio.sleep(self._rng.uniform(*PAUSE_S))
            await self._play(card)
            await self._watcher.until_whole()
            self.blows[card] += 1
        await self._thaw()

    def _shuffled(self) -> list[str]:
        """Return all cards; long freezes come early, and not next to each other."""
        short = [card for card in self.deck if not is_long(card)]
        self._rng.shuffle(short)
        for number, card in enumerate(filter(is_long, self.deck)):
            short.insert(1 + number * len(short) // 2, card)
        return short

    async def _play(self, card: str) -> None:
        verb, what, *ttls = card.split()
        if is_long(card) or (verb, what) in {("kill", "two"), ("restart", "all")}:
            await self._thaw()
        victim = self._draw()
        await self._rise(victim)
        match verb, what:
            case "kill", ("host" | "supervisor"):
                await self._kill_host(card, victim, whole=what == "host")
            case "kill", "two":
                await self._kill_two(card)
            case "kill", role:
                await self._kill_child(victim, role)
            case "freeze", _:
                await self._freeze(card, victim, what, float(ttls[0]))
            case (("cut" | "hold"), _):
                await self._break(card, victim)
            case "mute", _:
                await self._mute(card, victim)
            case "pull", _:
                await self._pull_cable(card, victim)
            case "restart", _:
                await self._restart_all(card)
            case _:
                raise AssertionError(f"there is no such card: {card}")

    async def _rise(self, victim: Member) -> None:
        """Wait until there is something to take away: mostly a whole share, but always some."""
        served = partial(self._watcher.served_by, victim.name)
        if self._rng.random() < WHOLE_SHARES:
            share = PARTITIONS // len(self._cluster.members)
            await self._watcher.until(lambda: served() >= share, within_s=SHARE_S_MAX)
        await eventually(served, within_s=SERVES_S_MAX)

    def _draw(self, *others: Member) -> Member:
        """Return one of the hosts that are not under a long freeze, nor among these."""
        taken = [*others, *([self._long[0]] if self._long else [])]
        return self._rng.choice([each for each in self._cluster.members if each not in taken])

    def _strike(self, card: str, *victims: Member) -> list[str]:
        owners = [self._watcher.owner_of(each.name) for each in victims]
        self._watcher.strike(f"{card} {''.join(each.name for each in victims)}", *owners)
        return owners

    async def _kill_host(self, card: str, victim: Member, *, whole: bool) -> None:
        self._strike(card, victim)
        await asyncio.to_thread(victim.served.kill_all if whole else victim.served.kill)
        await asyncio.sleep(self._rng.uniform(*AWAY_S))
        await asyncio.to_thread(victim.served.start)

    async def _kill_two(self, card: str) -> None:
        first = self._draw()
        second = self._draw(first)
        self._strike(card, first)
        await asyncio.to_thread(first.served.kill_all)
        # The other one is about to take over, or just has.
        await asyncio.sleep(self._rng.uniform(0, 1.5 * TTL_S))
        self._strike(card, second)
        await asyncio.to_thread(second.served.kill_all)
        await self._watcher.until_whole()
        await asyncio.gather(*(asyncio.to_thread(each.served.start) for each in (first, second)))

    async def _kill_child(self, victim: Member, role: str) -> None:
        # One that was killed or frozen a moment ago may not be back yet.
        await eventually(lambda: pids_of(victim, role), within_s=RESTART_TIMEOUT_S)
        pid = self._rng.choice(pids_of(victim, role))
        self._watcher.strike(f"kill {role} {victim.name}")
        victim.signal(signal.SIGKILL, [pid])
        await eventually(lambda: pid not in alive(), within_s=DEATH_TIMEOUT_S)

    async def _freeze(self, card: str, victim: Member, what: str, ttls: float) -> None:
        role = self._rng.choice(ROLES) if what == "process" else what
        await eventually(lambda: pids_of(victim, role), within_s=RESTART_TIMEOUT_S)
        keeps_lease = role in {"shard", "gateway"}
        owners = self._strike(f"{card} ({role})", *([] if keeps_lease else [victim]))
        pids = pids_of(victim, role)
        frozen = asyncio.ensure_future(self._frozen(victim, pids, ttls * TTL_S, owners))
        if ttls == LONG_TTLS:
            self._long = victim, frozen
        else:
            await frozen

    async def _frozen(
        self, victim: Member, pids: list[int], seconds: float, owners: list[str]
    ) -> None:
        await frozen_for(victim, pids, seconds)
        self._watcher.away.difference_update(owners)

    async def _thaw(self) -> None:
        """Wait for the end of a long freeze."""
        if self._long is not None:
            await self._long[1]
            self._long = None
            await self._watcher.until_whole()

    async def _break(self, card: str, victim: Member) -> None:
        how, what = card.split()
        owners = self._strike(card, *([victim] if what == "store" else []))
        members = self._cluster.members
        ways = [victim.store_way] if what == "store" else [each.peer_way for each in members]
        for way in ways:
            way.cut() if how == "cut" else way.hold()
        await asyncio.sleep(self._rng.uniform(*BROKEN_S))
        if what == "store":
            # What was held comes when others have taken over.
            await self._watcher.until_whole()
        for way in ways:
            way.heal()
        self._watcher.away.difference_update(owners)

    async def _mute(self, card: str, victim: Member) -> None:
        """Let what another host says to the victim be lost, while it hears the victim."""
        other = self._draw(victim)
        self._watcher.strike(f"{card} {other.name} to {victim.name}")
        # What it says to the victim by itself, and what it answers to who has come to it. With
        # three hosts the third shares these ways.
        victim.peer_way.mute(IN)
        other.peer_way.mute(OUT)
        await asyncio.sleep(self._rng.uniform(*BROKEN_S))
        for member in (victim, other):
            member.peer_way.heal()

    async def _pull_cable(self, card: str, victim: Member) -> None:
        assert victim.cable is not None, "it was asked for"
        owners = self._strike(card, victim)
        victim.cable.pull()
        await asyncio.sleep(self._rng.uniform(*BROKEN_S))
        await self._watcher.until_whole()
        victim.cable.plug()
        self._watcher.away.difference_update(owners)

    async def _restart_all(self, card: str) -> None:
        for member in self._cluster.members:
            self._watcher.strike(f"{card} {member.name}")
            code = await asyncio.to_thread(member.served.interrupt, signal.SIGTERM)
            assert code == 0, (
                f"host {member.name} ended with {code}: {member.served.stderr[-2000:]}"
            )
            await asyncio.to_thread(member.served.start)

    async def end(self) -> None:
        """Let go of what is frozen, whatever happened."""
        if self._long is not None:
            self._long[1].cancel()
            with suppress(asyncio.CancelledError):
                await self._long[1]


def is_long(card: str) -> bool:
    return card.endswith(f" {LONG_TTLS:g}")
