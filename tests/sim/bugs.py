"""The bugs. Those of decisions are made in what decides, not in what the judge shares with it
(`Shadow`), unless scenes themselves must notice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from shardrt.cluster import ownership
from shardrt.cluster.calls import PendingCall
from shardrt.cluster.membership import Membership
from shardrt.cluster.routing import Router
from shardrt.core import answering, history as h, messages as m, requests as r
from shardrt.core.answering import Answering
from shardrt.core.effects import Effect, Reply, RunActivity, Send
from shardrt.core.entity_transitions import EntityTransitions
from shardrt.core.ground import Ground
from shardrt.core.partition import Partition
from shardrt.core.state import Section
from shardrt.core.transitions import Transitions
from shardrt.host import checkpointer, recovery
from shardrt.host.checkpointer import Checkpointer
from shardrt.host.committer import Committer
from shardrt.host.lanes import Lanes
from shardrt.host.loading import Loader
from shardrt.host.partition_host import PartitionHost
from shardrt.host.shard import Shard
from shardrt.links.messages import ForwardRaw
from shardrt.store import memory
from shardrt.store.memory import MemoryStore
from shardrt.testing.sim.clocks import SimClock
from shardrt.testing.sim.ledger import Shadow
from shardrt.testing.virtual import pass_time
from tests.sim import cancel_bugs, execute_bugs, line_bugs  # noqa: F401 - registers them
from tests.sim.patching import BUGS, Patch, bug

if TYPE_CHECKING:
    from shardrt.core.state import Head

# -- durable first ---------------------------------------------------------------------------------


def _early(patch: Patch, kind: type[Effect]) -> None:
    """Let effects of a kind happen when their record is sealed."""

    def make(seal: Any) -> Any:
        def early(host: PartitionHost) -> Any:
            record = seal(host)
            for held in host.release._held:
                now = [each for each in held.effects if isinstance(each, kind)]
                held.effects[:] = [each for each in held.effects if not isinstance(each, kind)]
                host._perform(now)
            return record

        return early

    patch(PartitionHost, "seal", make)


@bug("ack before commit", "I1")
def _(patch: Patch) -> None:
    _early(patch, Reply)


@bug("message before commit", "I1")
def _(patch: Patch) -> None:
    _early(patch, Send)


@bug("activity before commit", "I1")
def _(patch: Patch) -> None:
    _early(patch, RunActivity)


@bug("read before durable", "I1")
def _(patch: Patch) -> None:
    def make(request: Any) -> Any:
        def early(host: PartitionHost, call: Any, to: Any) -> None:
            instance = host.core.instances.get(call.instance_id)
            if isinstance(call.request, r.Get) and instance is not None:
                host._answer(to, host.core.snapshot(instance))
            else:
                request(host, call, to)

        return early

    patch(PartitionHost, "_request", make)


@bug("partial batch acknowledged", "I1")
def _(patch: Patch) -> None:
    async def trusting(self: Committer, batch: dict[Any, Any]) -> None:
        for partition, record in list(batch.items()):
            del batch[partition]
            self._release(partition, record.lsn)

    patch(Committer, "_resolve", lambda _: trusting)


@bug("unknown commit assumed done", "I1")
def _(patch: Patch) -> None:
    async def hopeful(self: Committer, batch: dict[Any, Any]) -> None:
        for partition, record in list(batch.items()):
            del batch[partition]
            self._release(partition, record.lsn)

    patch(Committer, "_resolve_patiently", lambda _: hopeful)


@bug("unknown commit assumed failed", "I1")
def _(patch: Patch) -> None:
    async def gloomy(self: Committer, batch: dict[Any, Any]) -> None:
        for partition in batch:
            partition.release.sealed -= 1
        batch.clear()

    patch(Committer, "_resolve_patiently", lambda _: gloomy)


# -- one writer ------------------------------------------------------------------------------------


@bug("no epoch check on append", "I2")
def _(patch: Patch) -> None:
    def make(append: Any) -> Any:
        async def lax(self: MemoryStore, batch: Any) -> Any:
            current = [replace(a, epoch=self._partition(a.partition).epoch) for a in batch]
            return await append(self, current)

        return lax

    patch(MemoryStore, "append", make)


@bug("no epoch check on checkpoint", "I2")
def _(patch: Patch) -> None:
    def make(write: Any) -> Any:
        async def lax(self: MemoryStore, checkpoint: Any) -> None:
            epoch = self._partition(checkpoint.partition).epoch
            await write(self, replace(checkpoint, epoch=epoch))

        return lax

    patch(MemoryStore, "checkpoint", make)


@bug("no epoch check on truncation", "I2")
def _(patch: Patch) -> None:
    def make(truncate: Any) -> Any:
        async def lax(self: MemoryStore, partition: int, epoch: int, lsn: int) -> Any:
            return await truncate(self, partition, self._partition(partition).epoch, lsn)

        return lax

    patch(MemoryStore, "truncate", make)


@bug("claim without a new epoch", "I2")
def _(patch: Patch) -> None:
    def make(claim: Any) -> Any:
        async def lax(self: MemoryStore, partition: int, seen: int, owner: str) -> Any:
            epoch = await claim(self, partition, seen, owner)
            if epoch is not None and epoch > 1:
                self._partition(partition).epoch -= 1
                return epoch - 1
            return epoch

        return lax

    patch(MemoryStore, "claim", make)


@bug("zombie answers reads", "I1")
def _(patch: Patch) -> None:
    def forever(self: Shard, _: float) -> None:
        self.committer.extend_lease(float("inf"))

    patch(Shard, "extend_lease", lambda _: forever)


@bug("lease before what was lost", "I1")
def _(patch: Patch) -> None:
    def renewed(self: Membership, view: Any, until_s: float) -> None:
        offset = view.now - round(self._clock.monotonic_s() * 1_000_000)
        self._sink.lease(until_s, offset)
        self._ownership.renewed(self._lease.owner, view)

    patch(Membership, "renewed", lambda _: renewed)
    patch(ownership, "is_taken", lambda _: lambda *_: False)


@bug("lease from the answer on", "I1")
def _(patch: Patch) -> None:
    def make(renewed: Any) -> Any:
        def late(self: Membership, view: Any, until_s: float) -> None:
            self._lease.until_s = until_s = self._clock.monotonic_s() + self._lease._ttl_s
            renewed(self, view, until_s)

        return late

    patch(Membership, "renewed", make)


# -- checkpoints and recovery ----------------------------------------------------------------------


def _without(patch: Patch, field: str) -> None:
    def make(head_of: Any) -> Any:
        def forgetful(core: Partition) -> Head:
            head: Head = head_of(core)
            setattr(head, field, {})
            return head

        return forgetful

    patch(checkpointer, "head_of", make)


@bug("dedup not persisted", "I6")
def _(patch: Patch) -> None:
    _without(patch, "received")


@bug("sessions not persisted", "I5")
def _(patch: Patch) -> None:
    _without(patch, "sessions")


@bug("outbox not persisted", "I6")
def _(patch: Patch) -> None:
    _without(patch, "lanes")


@bug("history lost by checkpoints", "I3")
def _(patch: Patch) -> None:
    def make(encode: Any) -> Any:
        def shorter(events: Any) -> Any:
            return encode(events[:-1])

        return shorter

    patch(checkpointer, "encode_history", make)


@bug("checkpoint ahead of the journal", "I9")
def _(patch: Patch) -> None:
    patch(memory, "check_bounds", lambda _: lambda *_: None)

    async def at_once(self: Checkpointer, host: Any) -> Any:
        captured: list[Any] = []
        host.on_seal = lambda lsn: captured.append(checkpointer.capture_partition(host, lsn))
        host.shard.wake(host, work=False)
        while not captured and not host.closed:
            await host.durable_soon()
        return None if host.closed else captured[0]

    patch(Checkpointer, "_capture", lambda _: at_once)


@bug("truncation past the checkpoint", "I9")
def _(patch: Patch) -> None:
    async def all_of_it(self: MemoryStore, partition: int, epoch: int, _: int) -> int:
        row = self._owned(partition, epoch)
        covered = len(row.journal)
        row.journal.clear()
        return covered

    patch(MemoryStore, "truncate", lambda _: all_of_it)


@bug("dirty instances evicted", "I3")
def _(patch: Patch) -> None:
    patch(Partition, "can_evict", lambda _: lambda *_: True)
    patch(Checkpointer, "_is_evictable", lambda _: staticmethod(lambda host, i: host.core.holds(i)))


@bug("evicted while others are read", "I3")
def _(patch: Patch) -> None:
    patch(Loader, "keeps", lambda _: lambda *_: False)


@bug("effects not dropped on replay", "I4")
def _(patch: Patch) -> None:
    def make(replay: Any) -> Any:
        def noisy(core: Partition, entries: Any) -> None:
            if isinstance(core, Shadow):
                replay(core, entries)
                return
            for entry in entries:
                core.apply(entry)

        return noisy

    patch(Partition, "replay", make)


@bug("activities not run again", "liveness")
def _(patch: Patch) -> None:
    def make(take: Any) -> Any:
        def idle(core: Partition, epoch: int, now: int) -> None:
            take(core, epoch, now)
            core.effects = [each for each in core.effects if not isinstance(each, RunActivity)]

        return idle

    patch(Partition, "take", make)


@bug("timers forgotten by recovery", "liveness")
def _(patch: Patch) -> None:
    patch(Partition, "_index", lambda _: lambda *_: None)


@bug("recovery without the journal's tail", "I3")
def _(patch: Patch) -> None:
    async def none(*_: Any) -> int:
        return 0

    patch(recovery, "_replay_journal", lambda _: none)


# -- messages and requests -------------------------------------------------------------------------


@bug("outbox dropped before the acknowledgement", "I6")
def _(patch: Patch) -> None:
    def make(send: Any) -> Any:
        def careless(self: Lanes, destination: int) -> None:
            send(self, destination)
            lane = self._state.lanes[destination]
            lane.acknowledged, lane.messages = lane.last, []

        return careless

    patch(Lanes, "_send", make)


@bug("nothing is sent again", "liveness")
def _(patch: Patch) -> None:
    patch(Lanes, "tick", lambda _: lambda _: None)


@bug("resend skips a message", "I6")
def _(patch: Patch) -> None:
    def make(receive: Any) -> Any:
        def lax(core: Partition, source: int, first: int, *rest: Any) -> Any:
            if first > core.state.received.get(source, 0) + 1:
                core.state.received[source] = first - 1
            return receive(core, source, first, *rest)

        return lax

    patch(Partition, "receive", make)


@bug("repeated messages accepted", "I6")
def _(patch: Patch) -> None:
    def make(receive: Any) -> Any:
        def lax(core: Partition, source: int, first: int, *rest: Any) -> Any:
            last = core.state.received.get(source, 0)
            return receive(
                core, source, min(first + 1, last + 1) if first <= last else first, *rest
            )

        return lax

    patch(Partition, "receive", make)


@bug("requests not recognised", "I5")
def _(patch: Patch) -> None:
    patch(Answering, "is_applied", lambda _: lambda *_: False)


@bug("late result into a new execution", "I4")
def _(patch: Patch) -> None:
    def make(ended: Any) -> Any:
        def lax(core: Partition, run: RunActivity, *rest: Any) -> None:
            if (instance := core.instances.get(run.instance_id)) is not None:
                run = replace(run, execution_id=instance.execution_id)
            ended(core, run, *rest)

        return lax

    patch(Partition, "activity_ended", make)


@bug("clock ahead of the database", "I7")
def _(patch: Patch) -> None:
    patch(SimClock, "now", lambda now: lambda self: now(self) + 1_000_000)


@bug("timer by wall clock", "I7")
def _(patch: Patch) -> None:
    patch(SimClock, "now", lambda _: lambda self: self._oscillator.wall_us())


# -- what the judge shares with the product: scenes must notice ------------------------------------


@bug("new executions lose events", "result")
def _(patch: Patch) -> None:
    def make(anew: Any) -> Any:
        def forgetful(core: Ground, instance: Any, outcome: Any, at: int) -> None:
            anew(core, instance, replace(outcome, carried=()), at)

        return forgetful

    patch(Ground, "_continue_as_new", make)


@bug("locks are granted to all", "I6")
def _(patch: Patch) -> None:
    def granted(core: Partition, instance: Any, action: Any, at: int) -> None:
        del at
        instance.locks[action.section] = Section(action.task_id, list(action.entities))
        core._post(m.LockGranted(instance.instance_id, instance.execution_id, action.section))

    def make(called: Any) -> Any:
        return lambda core, message, at: called(core, replace(message, section=""), at)

    patch(EntityTransitions, "_called", make)
    patch(Transitions, "_ACTIONS", lambda actions: {**actions, h.EntityLockRequested: granted})


@bug("rewinding keeps the execution", "I4")
def _(patch: Patch) -> None:
    def make(derived_id: Any) -> Any:
        return lambda *parts: parts[0] if parts[1:] == ("rewound",) else derived_id(*parts)

    patch(answering, "derived_id", make)


# -- routing and hand-over -------------------------------------------------------------------------


@bug("the router forgets what was refused", "I12")
def _(patch: Patch) -> None:
    def forgetful(self: Router, seq: int, call: PendingCall, _: str | None) -> None:
        del self.pending[seq]
        call.caller.open.discard(seq)

    patch(Router, "_on_refused", lambda _: forgetful)


@bug("the router makes a new request of a retry", "I7")
def _(patch: Patch) -> None:
    def make(renumbered: Any) -> Any:
        def anew(self: PendingCall, seq: int) -> Any:
            message = renumbered(self, seq)
            if not isinstance(message, ForwardRaw):
                return message
            origin = r.Origin(message.origin.client, message.origin.seq + 100_000, 0)
            return replace(message, origin=origin)

        return anew

    patch(PendingCall, "renumbered", make)


@bug("a shard hands back before the last checkpoint and commit", "I1")
def _(patch: Patch) -> None:
    async def hasty(self: Shard, host: PartitionHost) -> None:
        host.freeze()
        host.closing = True
        self._owner.released(host.partition, host.epoch)
        await pass_time(0.5)
        host.discard()

    patch(Shard, "_release", lambda _: hasty)


ALL = BUGS
"""Name → bug."""
