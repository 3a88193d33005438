"""Keeping this host's lease: one row, renewed three times per TTL.

The lease is measured from *before* the renewal was sent, on the monotonic clock, less a
margin: this host stops serving before any other can think it free. A failed renewal is tried
again soon; while the deadline has not passed nothing else changes, and when it has, partitions
stop serving but keep their memory, since the epochs will tell whether it is still good.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import msgspec

from shardrt.cluster import identity
from shardrt.cluster.lease import TRANSITIONS, LeaseSignal, LeaseState
from shardrt.errors import ConfigInvalid, EpochFenced, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

    from shardrt.store.base import Host, Leases, View

logger = logging.getLogger(__name__)

RENEWALS_PER_TTL = 3
MARGIN = 0.2
"""Part of the TTL by which this host stops before its lease ends."""
JOIN_TTLS = 4
"""So long, in TTLs, must somebody else of our id have been there to be more than what a dead
process has left: its lease, and a last renewal that a slow database carried out late."""
RETRY_S_MIN = 0.25
RETRY_S_MAX = 1.0
"""The pause after a failed renewal doubles from the first to this: an outage is over for us
within about a second of its end, and until then costs the store a query per second."""
EXPIRY_SLACK_S = 0.05
"""How long after another host's expiry we look: late enough to see it."""


class Monotonic(Protocol):
    """The one thing that a lease needs of a clock."""

    def monotonic_s(self) -> float:
        """Return seconds from an arbitrary start."""
        ...


class Observer(Protocol):
    """Who lives by the lease."""

    def renewed(self, view: View, until_s: float) -> None:
        """Learn that the lease holds until this monotonic time, and how the hub looks."""
        ...

    def fenced(self, owner: str) -> None:
        """Learn that everything owned so far is lost, and the owner's name from now on."""
        ...

    def look_again_s(self) -> float | None:
        """Return how soon the hub should be looked at again; None: no hurry."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Identities:
    """Where incarnations come from; a simulation has its own."""

    new: Callable[[], str] = identity.new_incarnation
    is_dead: Callable[[str], bool] = identity.is_dead


class LeaseKeeper:
    """Owns the host's row. `run` renews it until cancelled."""

    def __init__(
        self,
        host: Host,
        *,
        store: Leases,
        clock: Monotonic,
        ttl_s: float,
        identities: Identities | None = None,
    ) -> None:
        self._identities = identities or Identities()
        self.host = msgspec.structs.replace(host, incarnation=self._identities.new())
        self.state = LeaseState.JOINING
        self.until_s = 0.0
        """Until when the last renewal lets us serve."""
        self._granted_s: float | None = None
        """Until when, by our clock, the row in the store surely keeps others from claiming."""
        self._store = store
        self._clock = clock
        self._ttl_s = ttl_s
        self._interval_s = ttl_s / RENEWALS_PER_TTL
        self.ping_s: float | None = None
        """How long the last renewal took."""
        self.renewed_s: float | None = None
        """When it was answered; None: never."""
        self.problem = ""
        """Why the one under way is not the first attempt."""
        self._failures = 0
        self._fenced_since_s: float | None = None
        """Since when another incarnation has kept us from joining."""
        self._wake = asyncio.Event()

    @property
    def owner(self) -> str:
        """What partitions of this host name as their owner."""
        return identity.owner_name(self.host.host_id, self.host.incarnation)

    @property
    def holds(self) -> bool:
        return self.until_s > self._clock.monotonic_s()

    def look(self) -> None:
        """Renew now rather than when it is due."""
        self._wake.set()

    async def run(self, observer: Observer) -> None:
        """Keep the lease until cancelled.

        Raises:
            ConfigInvalid: another live host has our id.
        """
        await self._bury_the_dead()
        while self.state is not LeaseState.LEFT:
            # Before the renewal: what asks for a look meanwhile gets another one.
            self._wake.clear()
            pause_s = await self._renew(observer)
            try:
                async with asyncio.timeout(pause_s):
                    await self._wake.wait()
            except TimeoutError:
                pass

    def leave(self) -> None:
        """Tell the other hosts with the next renewal, which is now, that we are leaving."""
        self._signal(LeaseSignal.LEAVE)
        self.host = msgspec.structs.replace(self.host, draining=True)
        self.look()

    def weigh(self, shards: int) -> None:
        """Tell the other hosts, now if it is news, how many shards there are to serve."""
        if shards != self.host.shards:
            self.host = msgspec.structs.replace(self.host, shards=shards)
            self.look()

    def stop(self) -> None:
        """End `run` after the renewal in flight, if any."""
        self._signal(LeaseSignal.GONE)
        self.look()

    async def withdraw(self, timeout_s: float) -> None:
        """Delete the row, and whatever still names us as its owner. `run` must have ended."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._store.leave(self.host)
        except (StoreError, TimeoutError) as error:
            logger.warning("host=%s left without telling the store: %s", self.host.host_id, error)

    async def _renew(self, observer: Observer) -> float:
        """Renew once; return how long to wait until the next time."""
        sent_s = self._clock.monotonic_s()
        try:
            async with asyncio.timeout(self._interval_s):
                view = await self._store.renew(self.host, round(self._ttl_s * 1_000_000))
        except EpochFenced:
            self._on_fenced(observer)
            return RETRY_S_MIN
        except TimeoutError:
            return self._on_failure(f"no answer within {self._interval_s:.1f} s")
        except StoreError as error:
            return self._on_failure(str(error))
        self._failures, self._fenced_since_s = 0, None
        self.problem, self.renewed_s = "", self._clock.monotonic_s()
        self.ping_s = self.renewed_s - sent_s
        before_s, self._granted_s = self._granted_s, sent_s + self._ttl_s * (1 - MARGIN)
        if before_s is not None and self._clock.monotonic_s() >= before_s:
            # The lease may have ended before it was renewed: who claimed at that very moment is
            # not in this view. From now on nobody can, so the next one has them all.
            return 0.0
        self.until_s = self._granted_s
        self._signal(LeaseSignal.RENEWED)
        observer.renewed(view, self.until_s)
        return self._pause_s(view, observer)

    def _pause_s(self, view: View, observer: Observer) -> float:
        """Return when to look next: as usual, or just after another host's lease ends."""
        pause_s = self._interval_s
        hurry_s = observer.look_again_s()
        if hurry_s is not None:
            pause_s = min(pause_s, hurry_s)
        for host in view.hosts:
            left_s = (host.expires_at - view.now) / 1_000_000 + EXPIRY_SLACK_S
            if host.incarnation != self.host.incarnation and 0 < left_s < pause_s:
                pause_s = left_s
        return pause_s

    def _on_failure(self, reason: str) -> float:
        self._failures += 1
        self.problem = reason
        if self._failures == 1 and self.state not in {LeaseState.HELD, LeaseState.DOUBTFUL}:
            logger.warning("host=%s cannot renew its lease: %s", self.host.host_id, reason)
        self._signal(LeaseSignal.RENEWAL_FAILED, reason)
        retry_s = RETRY_S_MIN * 2.0 ** min(self._failures - 1, 20)
        pause_s = min(self._interval_s, RETRY_S_MAX, retry_s)
        left_s = self.until_s - self._clock.monotonic_s()
        if left_s > 0:
            return min(pause_s, left_s)
        self._signal(LeaseSignal.DEADLINE_PASSED)
        return pause_s

    def _on_fenced(self, observer: Observer) -> None:
        now_s = self._clock.monotonic_s()
        joining = self.state is LeaseState.JOINING
        self._signal(LeaseSignal.FENCED)
        if joining and self._fenced_since_s is None:
            self._fenced_since_s = now_s
            logger.warning(
                "host=%s is still leased to an earlier process; waiting for up to %.0f s",
                self.host.host_id,
                self._ttl_s,
            )
        elif joining:
            self._give_up_joining(now_s)
        else:
            self._rejoin(observer)

    def _give_up_joining(self, now_s: float) -> None:
        assert self._fenced_since_s is not None
        if now_s - self._fenced_since_s > JOIN_TTLS * self._ttl_s:
            raise ConfigInvalid(
                f"host.host_id: another running host has the id {self.host.host_id!r}; "
                "give each host its own"
            )

    def _rejoin(self, observer: Observer) -> None:
        """Start again as somebody new: our row is gone, and with it all we owned."""
        self.host = msgspec.structs.replace(self.host, incarnation=self._identities.new())
        self.until_s, self._granted_s = 0.0, None
        observer.fenced(self.owner)

    async def _bury_the_dead(self) -> None:
        """Remove the rows of processes of this machine that were killed.

        Their leases need not be waited for. Should one of them be alive after all, epochs
        keep it from writing, and its next renewal makes it join again.
        """
        try:
            async with asyncio.timeout(self._interval_s):
                for host in (await self._store.view()).hosts:
                    if self._identities.is_dead(host.incarnation):
                        logger.info("host=%s was killed; its lease ends now", host.host_id)
                        await self._store.leave(host)
        except (StoreError, TimeoutError) as error:
            logger.warning("could not look for left-over hosts: %s", error)

    def _signal(self, signal: LeaseSignal, reason: str = "") -> None:
        state = TRANSITIONS[self.state][signal]
        if state is not self.state:
            log = logger.warning if state in _ALARMING else logger.info
            why = f"{signal}: {reason}" if reason else signal
            log("host=%s lease %s → %s (%s)", self.host.host_id, self.state, state, why)
        self.state = state


_ALARMING = {LeaseState.DOUBTFUL, LeaseState.EXPIRED, LeaseState.JOINING}
