"""The router: takes calls to the owners of their partitions, however often those move.

It keeps every call until it is answered. When a link breaks, a partition moves, or an owner
refuses because it is not (or not yet) the owner, the call is sent again, as the same request
of the same client, so that the owner can tell a repetition: to whoever serves the partition by
the newest routes, after a pause that grows, until it has been without an owner for too long.
While a partition pauses, new calls for it queue up behind the others.

Routes that lead nowhere are told to whoever made them, seldom enough that a storm of refusals
is not a storm of queries. What comes from a peer is tried once, at a shard of this host: the
peer has a router of its own, and calls never travel in circles.

No sockets in here: links are made by a `Keep`, time is the event loop's.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from shardrt.cluster.looks import Looks
from shardrt.cluster.upstream import Keep, Upstream
from shardrt.core.requests import Refusal
from shardrt.errors import PartitionUnavailable
from shardrt.links.messages import Accepted, Answer, Forget, ForwardRaw, Look, NotOwner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from shardrt.cluster.calls import Caller, PendingCall
    from shardrt.links.messages import Acknowledge, DeliverRaw, FromHost, Resend

STRANDED_S = 5.0
"""How much longer than the TTL of leases a call is kept without an owner: by then another host
should have taken over from one that died."""
RETRY_S_MIN = 0.02
"""The first pause of a partition that refused a call; doubles with each refusal in a row."""
RETRY_S_MAX = 0.5
ACCEPTED_S = 1.0
"""What was not refused for so long was taken, and lost its owner later."""
HINT_S = 1.0
"""How long a host that a hint names may take to be reached."""
NUDGED_S = 5.0
"""How long a link to a peer is kept that was only made to nudge it."""
SWEEP_S = 0.5
CALLS_MAX = 400_000
"""Calls under way through one router, waits included; about 1 kB each."""
CALLS_PER_CALLER_MAX = 200_000
OVERLOADED_RETRY_AFTER_S = 0.5
RETRY_AFTER_S = 0.1
"""What clients are told to wait when nothing else helps."""


class _Trouble:
    """A partition that has refused calls of late."""

    __slots__ = ("calls", "hinted", "refusals", "timer")

    def __init__(self) -> None:
        self.refusals = 0
        self.hinted = False
        """Whether a hint was followed at once already: two hosts may each believe in the other."""
        self.timer: asyncio.TimerHandle | None = None
        """Set while it pauses."""
        self.calls: dict[int, None] = {}
        """What waits for the end of the pause, by number."""


class Router:
    """Routes calls. Run `run` as a task, and tell it the routes as they change.

    Args:
        partitions: of the hub.
        keep: how links are made.
        stranded_s_max: how long a call is kept without an owner.
        look: called when routes have led nowhere.
    """

    def __init__(
        self,
        partitions: int,
        *,
        keep: Keep,
        stranded_s_max: float,
        look: Callable[[], None] = lambda: None,
    ) -> None:
        self.routes: list[Upstream | None] = [None] * partitions
        """Where calls go: as told, or as a hint of a peer says."""
        self._told: list[Upstream | None] = [None] * partitions
        self._hinted: dict[int, float] = {}
        """Partition → when a hint was followed that leads elsewhere than what was told."""
        self.was_complete = False
        """Whether there was an owner of each partition at some time."""
        self.pending: dict[int, PendingCall] = {}
        """Calls under way by our number, in order of their sending."""
        self._keep = keep
        self._stranded_s_max = stranded_s_max
        self.is_patient = True
        """Whether calls without an owner are kept at all."""
        self._looks = Looks(look)
        self._loop = asyncio.get_running_loop()
        self._upstreams: dict[str, Upstream] = {}
        self._troubles: dict[int, _Trouble] = {}
        self._changed = asyncio.Event()
        """Set when a link may have to be made or ended."""
        self._seq = 0

    # -- calls ----------------------------------------------------------------------------------

    def has_room(self, calls: set[int]) -> bool:
        """Whether another call of who has these under way can be taken."""
        return len(calls) < CALLS_PER_CALLER_MAX and len(self.pending) < CALLS_MAX

    def number(self) -> int:
        """Return the number under which the next call is to be sent."""
        self._seq += 1
        return self._seq

    def send(self, seq: int, call: PendingCall) -> None:
        """Take a call, which bears this number, to its owner."""
        self.pending[seq] = call
        call.caller.open.add(seq)
        partition = call.partition
        upstream = self._any_upstream() if partition is None else self.routes[partition]
        if upstream is None or upstream.link is None or self._pauses(partition):
            self._strand(seq, call, upstream)
        else:
            call.upstream = upstream
            upstream.link.send(call.message)

    def send_here(self, seq: int, call: PendingCall) -> None:
        """Pass on a peer's call, if a shard of this host is its owner; else tell the peer."""
        self.pending[seq] = call
        call.caller.open.add(seq)
        partition = call.partition
        upstream = self._any_shard() if partition is None else self.routes[partition]
        if upstream is None or upstream.is_peer or upstream.link is None:
            self._turn_away(seq, call)
        else:
            call.upstream = upstream
            upstream.link.send(call.message)

    def pass_on(self, partition: int, message: DeliverRaw | Acknowledge | Resend) -> None:
        """Pass on a message between partitions, if a shard of this host serves it."""
        upstream = self.routes[partition] if 0 <= partition < len(self.routes) else None
        if upstream is not None and not upstream.is_peer and upstream.link is not None:
            upstream.link.send(message)

    def nudge(self, targets: Iterable[str]) -> None:
        """Have these hosts look at the hub: there is something for them to take over."""
        for target in targets:
            upstream = self._upstream(target)
            assert upstream is not None, "a target is not empty"
            upstream.needed_until = self._loop.time() + NUDGED_S
            upstream.is_wanted = True
            if upstream.link is not None:
                upstream.link.send(Look())
            else:
                upstream.is_to_be_nudged = True
        self._changed.set()

    def forget(self, seqs: Iterable[int]) -> None:
        """Drop calls whose caller has gone, and let owners forget what it waited for."""
        waits: dict[Upstream, list[int]] = {}
        for seq in list(seqs):
            call = self.pending.pop(seq, None)
            if call is None:
                continue
            call.caller.open.discard(seq)
            if call.lasts and call.upstream is not None:
                waits.setdefault(call.upstream, []).append(seq)
        for upstream, forgotten in waits.items():
            if upstream.link is not None:
                upstream.link.send(Forget(tuple(forgotten)))

    @property
    def calls_under_way(self) -> int:
        """Calls without an answer, but for those that wait for an instance to end.

        Those that start it as well are not counted, either: made again they find it.
        """
        return sum(not call.lasts for call in self.pending.values())

    @property
    def partitions_served(self) -> int:
        """Partitions to whose owner there is a link, or can be as far as is known."""
        return sum(each is not None and each.may_serve for each in self.routes)

    # -- answers --------------------------------------------------------------------------------

    def _on_messages(self, messages: list[FromHost]) -> None:
        pending = self.pending
        for message in messages:
            if isinstance(message, Accepted):
                self._on_accepted(message.seqs)
                continue
            seq = message.seq
            call = pending.get(seq)
            if call is None:
                continue  # its client has gone, or it was sent elsewhere since
            if type(message) is Answer and (call.is_once or not _is_moving(message.refusal)):
                del pending[seq]
                call.caller.open.discard(seq)
                call.caller.link.send(Answer(call.caller_seq, message.result, message.refusal))
                if self._troubles and call.partition in self._troubles:
                    self._on_served(call.partition)
            elif type(message) is Answer and message.refusal is not None:
                call.why = message.refusal.message
                self._on_refused(seq, call, None)
            else:
                assert isinstance(message, NotOwner)
                self._on_refused(seq, call, message.owner)

    def _on_accepted(self, seqs: Iterable[int]) -> None:
        told: dict[Caller, list[int]] = {}
        for seq in seqs:
            call = self.pending.get(seq)
            if call is not None and call.lasts and not call.is_wait:
                call.becomes_wait()
                told.setdefault(call.caller, []).append(call.caller_seq)
        for caller, caller_seqs in told.items():
            caller.link.send(Accepted(tuple(caller_seqs)))

    def _on_served(self, partition: int) -> None:
        if self._troubles[partition].timer is None:
            del self._troubles[partition]

    def _on_refused(self, seq: int, call: PendingCall, owner: str | None) -> None:
        """Keep a call that was refused for the owner that there will be."""
        partition = call.partition
        if call.is_once:
            self._turn_away(seq, call)
            return
        if partition is None:
            self._strand(seq, call, None)
            return
        trouble = self._troubles.get(partition)
        if trouble is None:
            trouble = self._troubles[partition] = _Trouble()
        came_from = call.upstream
        self._strand(seq, call, None)
        if trouble.timer is not None:
            return
        pause_s = min(RETRY_S_MAX, RETRY_S_MIN * 2.0 ** min(trouble.refusals, 20))
        trouble.refusals += 1
        if owner is not None and self._is_news(owner, came_from):
            self.routes[partition] = self._upstream(owner)
            self._hinted[partition] = self._loop.time()
            if not trouble.hinted:
                trouble.hinted = True
                pause_s = 0.0
        else:
            self._go_as_told(partition)
        trouble.timer = self._loop.call_later(pause_s, self._retry, partition)

    def _go_as_told(self, partition: int) -> None:
        """Forget a hint that led nowhere: nobody tells us again what we have been told."""
        self._hinted.pop(partition, None)
        self.routes[partition] = self._told[partition]

    @staticmethod
    def _is_news(owner: str, came_from: Upstream | None) -> bool:
        return came_from is None or owner != came_from.address

    def _retry(self, partition: int) -> None:
        trouble = self._troubles.get(partition)
        if trouble is None:
            return
        trouble.timer = None
        calls, trouble.calls = trouble.calls, {}
        for seq in calls:
            call = self.pending.get(seq)
            if call is not None and call.upstream is None:
                self._resend(seq, call)

    def _pauses(self, partition: int | None) -> bool:
        if not self._troubles or partition is None:
            return False
        trouble = self._troubles.get(partition)
        return trouble is not None and trouble.timer is not None

    def _strand(self, seq: int, call: PendingCall, upstream: Upstream | None) -> None:
        """Keep a call until there is an owner, or `expire` refuses it."""
        now = self._loop.time()
        was_accepted = call.upstream is not None and now - call.sent_at > ACCEPTED_S
        if call.stranded_at is None or was_accepted:
            call.stranded_at = now
        call.upstream = None
        if upstream is not None and not upstream.is_wanted:
            upstream.is_wanted = True
            self._changed.set()
        trouble = None if call.partition is None else self._troubles.get(call.partition)
        if trouble is not None:
            trouble.calls[seq] = None
        self._looks.complain()
        if not self.is_patient:
            self._refuse(seq, call, "this host is shutting down")

    def _turn_away(self, seq: int, call: PendingCall) -> None:
        """Tell a peer that it has to look elsewhere."""
        del self.pending[seq]
        call.caller.open.discard(seq)
        partition = call.partition
        route = None if partition is None else self.routes[partition]
        owner = route.address if route is not None and route.is_peer else None
        call.caller.link.send(NotOwner(call.caller_seq, owner))

    # -- routes ---------------------------------------------------------------------------------

    def set_routes(self, targets: Sequence[str | None]) -> None:
        """Adopt who serves what: per partition a shard's socket, a host's URL, or None.

        Calls under way to an owner that a partition has left are sent to its new owner.
        """
        changed: set[int] = set()
        self._hinted.clear()
        for partition, before in enumerate(self.routes):
            target = targets[partition] if partition < len(targets) else None
            upstream = self.routes[partition] = self._told[partition] = self._upstream(target)
            if upstream is not before:
                changed.add(partition)
        self.was_complete = self.was_complete or None not in self.routes
        self._changed.set()
        if not changed:
            return
        self._looks.changed()
        for partition in changed & self._troubles.keys():
            timer = self._troubles.pop(partition).timer
            if timer is not None:
                timer.cancel()
        for seq, call in list(self.pending.items()):
            if type(call.message) is ForwardRaw and call.message.partition in changed:
                owner = self.routes[call.message.partition]
                if owner is not None and owner is not call.upstream:
                    self._resend(seq, call)

    def _upstream(self, address: str | None) -> Upstream | None:
        if address is None:
            return None
        upstream = self._upstreams.get(address)
        if upstream is None:
            upstream = Upstream(address, self._on_opened, self._on_messages, self._on_lost)
            self._upstreams[address] = upstream
        return upstream

    def _any_upstream(self) -> Upstream | None:
        shard = self._any_shard()
        if shard is not None:
            return shard
        peers = [each for each in self._upstreams.values() if each.is_peer]
        linked = [each for each in peers if each.link is not None] or peers
        return linked[self._seq % len(linked)] if linked else None

    def _any_shard(self) -> Upstream | None:
        shards = [
            each for each in self._upstreams.values() if each.link is not None and not each.is_peer
        ]
        return shards[self._seq % len(shards)] if shards else None

    def _on_opened(self, upstream: Upstream) -> None:
        # Only when the handler is in place may anything be sent.
        self._loop.call_soon(self._send_stranded)
        if upstream.is_to_be_nudged:
            upstream.is_to_be_nudged = False
            self._loop.call_soon(self.nudge, [upstream.address])

    def _on_lost(self, upstream: Upstream) -> None:
        for seq, call in list(self.pending.items()):
            if call.upstream is not upstream:
                continue
            if call.is_once:
                self._turn_away(seq, call)
            else:
                self._strand(seq, call, None)
        self._send_stranded()

    def _send_stranded(self) -> None:
        for seq, call in list(self.pending.items()):
            if call.upstream is None:
                self._resend(seq, call)

    def _resend(self, seq: int, call: PendingCall) -> None:
        if call.is_once:
            self._turn_away(seq, call)
            return
        partition = call.partition
        if self._pauses(partition):
            return
        upstream = self._any_upstream() if partition is None else self.routes[partition]
        if upstream is None or upstream.link is None:
            self._strand(seq, call, upstream)
            return
        # Under a new number: an answer to the old one could be of an owner that has lost the
        # partition meanwhile.
        del self.pending[seq]
        call.caller.open.discard(seq)
        seq = self.number()
        self.pending[seq] = call
        call.caller.open.add(seq)
        call.message = call.renumbered(seq)
        call.sent_at = self._loop.time()
        call.upstream = upstream
        upstream.link.send(call.message)

    # -- life -----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Keep links to all shards that routes name, and to peers once needed, until cancelled."""
        kept: dict[str, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._sweep())
            while True:
                await self._changed.wait()
                self._changed.clear()
                for address, upstream in self._upstreams.items():
                    if address not in kept and upstream.is_wanted:
                        kept[address] = tasks.create_task(self._keep(address, upstream.accept))
                for address in self._unused():
                    del self._upstreams[address]
                    if (task := kept.pop(address, None)) is not None:
                        task.cancel()

    def _unused(self) -> list[str]:
        used = {each.address for each in (*self.routes, *self._told) if each is not None}
        used |= {call.upstream.address for call in self.pending.values() if call.upstream}
        now = self._loop.time()
        used |= {each.address for each in self._upstreams.values() if each.needed_until > now}
        return [address for address in self._upstreams if address not in used]

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            self._drop_dead_hints()
            self.expire()
            if self._unused():
                self._changed.set()

    def _drop_dead_hints(self) -> None:
        since = self._loop.time() - HINT_S
        for partition, at in list(self._hinted.items()):
            route = self.routes[partition]
            if at <= since and (route is None or route.link is None):
                self._go_as_told(partition)
                self._send_stranded()

    def expire(self) -> None:
        """Refuse calls that have been without an owner for too long."""
        now = self._loop.time()
        is_any_stranded = False
        for seq, call in list(self.pending.items()):
            if call.upstream is not None:
                continue
            is_any_stranded = True
            if call.stranded_at is None or call.stranded_at <= now - self._stranded_s_max:
                why = f": {call.why}" if call.why else ""
                self._refuse(seq, call, f"no owner for {self._stranded_s_max:g} s{why}")
        if is_any_stranded:
            self._looks.complain()

    def _refuse(self, seq: int, call: PendingCall, why: str) -> None:
        del self.pending[seq]
        call.caller.open.discard(seq)
        where = "" if call.partition is None else f"partition {call.partition}: "
        refusal = Refusal(PartitionUnavailable.code, where + why, RETRY_AFTER_S)
        call.caller.link.send(Answer(call.caller_seq, refusal=refusal))


def _is_moving(refusal: Refusal | None) -> bool:
    return refusal is not None and refusal.code == PartitionUnavailable.code
