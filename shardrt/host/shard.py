"""A shard: the partitions of one worker process, their code, commits and checkpoints.

One event loop, one owner per state. Inputs are applied as they come; once per turn of the loop
the partitions that have news run their orchestrators, and the committer takes what they wrote.
"""

from __future__ import annotations

import asyncio
import logging
import random
from functools import partial
from typing import TYPE_CHECKING, Any

from shardrt.core import requests as r
from shardrt.errors import EpochFenced, StoreUnavailable
from shardrt.host.activity_pool import ActivityPool
from shardrt.host.black_box import BlackBox
from shardrt.host.bounds import Bounds
from shardrt.host.checkpointer import RESIDENT_BYTES, Checkpointer
from shardrt.host.committer import Committer
from shardrt.host.condemning import condemned, suspected
from shardrt.host.gathering import Gathering
from shardrt.host.intake import Intake
from shardrt.host.meter import Meter
from shardrt.host.notices import Notices
from shardrt.host.observing import observing
from shardrt.host.partition_host import PartitionHost
from shardrt.host.quarantine import some_of
from shardrt.host.queries import Queries
from shardrt.host.recovery import recover
from shardrt.host.retention import Retention
from shardrt.host.rounds import Rounds
from shardrt.host.transactional import orphans_of, transactional_names
from shardrt.host.turns import Turns
from shardrt.links.messages import Answer, Ask, Deliver, Forward, PartitionTraffic
from shardrt.orchestration.entity_executor import EntityExecutor
from shardrt.orchestration.executor import Executor
from shardrt.store.transactions import transactions_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from shardrt.config import Settings
    from shardrt.core.partition import Partition
    from shardrt.core.state import Resident
    from shardrt.host.clock import Clock
    from shardrt.host.ports import Network, Owner
    from shardrt.host.surroundings import Answering
    from shardrt.host.worker_pool import AppSource
    from shardrt.links.control import Blamed
    from shardrt.links.metrics import Samples
    from shardrt.orchestration.app import App
    from shardrt.store.base import PartitionHead, Store
    from shardrt.store.transactions import OutcomeKey
    from shardrt.tracing.tracer import Tracer

logger = logging.getLogger(__name__)

TICK_S = 0.5
ALARM_S_MAX = 60.0
"""Longest sleep towards a timer; clocks are corrected meanwhile."""
OPEN_BACKOFF_S = 0.5
CROWDED = 1.5
"""Idle instances are evicted at the bound; so many times as much means that most are busy."""
WATCH_S = 600.0
"""How long it is noted what runs, once a shard process has died."""
SESSION_US = 3600 * 1_000_000
"""A client that has not been heard of for so long is forgotten."""


class Shard:
    """All of one shard. Use `run` in a task; everything else may be called from its loop."""

    def __init__(  # noqa: PLR0913 - its whole surroundings
        self,
        *,
        settings: Settings,
        app: App,
        store: Store,
        clock: Clock,
        network: Network,
        owner: Owner,
        partitions: int,
        name: str,
        index: int = 0,
        source: AppSource | None = None,
        draw: Callable[[], float] = random.random,
        box: BlackBox | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        self._box = box = box or BlackBox()
        self.store = store
        self.gathering = Gathering(store)
        self.clock = clock
        self.network = network
        self.draw = draw
        self.unsaved_bytes_max = settings.shard.journal_unsaved_bytes_max
        self.requests_in_flight = 0
        self.bytes_in_flight = 0
        self.is_crowded = False
        """More instances are in memory than should be, and they cannot be evicted."""
        self._owner = owner
        self.hosts: dict[int, PartitionHost] = {}
        self._opening: dict[int, tuple[int, asyncio.Task[None]]] = {}
        self._revoking: dict[int, asyncio.Task[None]] = {}
        bounds = Bounds(settings.limits)
        executor = Executor(app, settings.shard.guard)
        self.turns = Turns(executor, EntityExecutor(app, bounds), bounds, box)
        self.transactional = transactional_names(app, store)
        self.pool = ActivityPool(app, settings, host_id=name, shard=index, source=source, box=box)
        self.pool.transactions = transactions_of(store)
        self.meter = Meter(store.url_masked.partition(":")[0])
        self.pool.attempted = self.meter.attempted
        self.notices = Notices(clock.monotonic_s, sealed=app.sealer is not None)
        self.meter.failed = self.notices.failed
        make = observing(tracer, clock.now, {"host.id": name, "shard.id": index}, self.pool)
        self._rebuild = partial(recover, store, partitions=partitions, make=make)
        self.committer = Committer(store, clock)
        self.checkpointer = self._make_checkpointer(settings)
        self._queries = Queries(store, settings, partitions)
        self._intake = Intake(settings, app, self, tracer)
        self._retention = Retention(
            store, clock, settings.retention, partitions=partitions, name=name, submit=self.submit
        )
        self._drain_s = settings.host.drain_s
        self._freezing = asyncio.Lock()
        self._resident_bytes_max = settings.shard.resident_bytes_max
        self._rounds = Rounds(self, self._intake)
        self._unwatch: asyncio.TimerHandle | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = 0

    def _make_checkpointer(self, settings: Settings) -> Checkpointer:
        checkpointer = Checkpointer(
            self.store,
            interval_s=settings.shard.checkpoint_interval_s,
            bytes_max=settings.shard.checkpoint_bytes_max,
            resident_bytes_max=settings.shard.resident_bytes_max,
            drop=self.turns.drop,
        )
        checkpointer.on_flushed = self.meter.flushed
        return checkpointer

    # -- life ----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Work until cancelled; then drop everything without another write."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self.committer.run())
                tasks.create_task(self.checkpointer.run(lambda: list(self.hosts.values())))
                tasks.create_task(self._tick())
                tasks.create_task(self._retention.run(lambda: set(self.hosts)))
        finally:
            for task in [*(t for _, t in self._opening.values()), *self._revoking.values()]:
                task.cancel()
            for host in list(self.hosts.values()):
                host.discard()
            for handle in (self._alarm, self._unwatch):
                if handle is not None:
                    handle.cancel()
            self._intake.close()
            self.gathering.close()
            await self._queries.close()
            await self.pool.close()

    def extend_lease(self, until_s: float) -> None:
        """Serve until this monotonic time; afterwards neither commit nor answer reads."""
        self.committer.extend_lease(until_s)

    async def drain(self, grace_s: float) -> None:
        """Hand back everything: let what runs end, checkpoint, report each as released."""
        self._drain_s = grace_s
        for partition in [*self.hosts, *self._opening]:
            self.revoke(partition)
        while self._revoking:
            await asyncio.wait(list(self._revoking.values()))

    # -- partitions ----------------------------------------------------------------------------

    def watch(self) -> None:
        """Note for a while what user code runs, in case that it ends this process."""
        self._box.watches = True
        if self._unwatch is not None:
            self._unwatch.cancel()
        loop = asyncio.get_running_loop()
        self._unwatch = loop.call_later(WATCH_S, setattr, self._box, "watches", False)

    def assign(self, partition: int, epoch: int, blamed: Sequence[Blamed] = ()) -> None:
        """Recover the partition and serve it; `owner.opened` or `owner.lost` follows.

        What is `blamed` for deaths of shards is not run, or run with care; see `condemning`.
        """
        self.discard(partition)
        task = asyncio.get_running_loop().create_task(self._open(partition, epoch, blamed))
        self._opening[partition] = (epoch, task)

    async def _open(self, partition: int, epoch: int, blamed: Sequence[Blamed]) -> None:
        broken = ""
        recovered = None
        orphans: list[OutcomeKey] = []
        try:
            recovered = await self._recover(partition, epoch, blamed)
            if self.transactional:
                orphans = await orphans_of(self.store, recovered[0])
        except EpochFenced:
            logger.warning("partition=%d epoch=%d lost before it served", partition, epoch)
        except Exception as error:
            broken = f"{type(error).__name__}: {error}"
            logger.exception("partition=%d epoch=%d cannot be recovered", partition, epoch)
        del self._opening[partition]
        if recovered is None:
            self._owner.lost(partition, epoch, broken)
            return
        core, head = recovered
        host = PartitionHost(
            self, core, commit_lsn=head.commit_lsn, checkpoint_lsn=head.checkpoint_lsn
        )
        host.settled = orphans
        self.hosts[partition] = host
        self.pool.suspects |= suspected(blamed)
        host.open(self.clock.now(), lambda: self._owner.opened(partition, epoch), blamed)

    async def _recover(
        self, partition: int, epoch: int, blamed: Sequence[Blamed]
    ) -> tuple[Partition, PartitionHead]:
        also = {each.instance_id for each in condemned(blamed)}
        while True:
            try:
                return await self._rebuild(partition=partition, epoch=epoch, also=also)
            except StoreUnavailable as error:
                logger.warning("partition=%d cannot be recovered yet: %s", partition, error)
                await asyncio.sleep(OPEN_BACKOFF_S)
            except EpochFenced:
                raise
            except Exception:
                # Damage, a bug, or rows of one moment and journal of another: the next owner may
                # have written, and cut, what was being read.
                if await self._is_ours(partition, epoch):
                    raise

    async def _is_ours(self, partition: int, epoch: int) -> bool:
        """Whether the epoch is current; raise `EpochFenced` if it is over."""
        try:
            await self.store.head(partition, epoch)
        except StoreUnavailable:
            return False  # nobody knows: recover once more
        return True

    def revoke(self, partition: int) -> None:
        """Hand the partition back gracefully; `owner.released` follows."""
        if partition in self._opening:
            epoch, _ = self._opening[partition]
            self.discard(partition)
            self._owner.released(partition, epoch)
        elif partition in self.hosts and partition not in self._revoking:
            host = self.hosts[partition]
            task = asyncio.get_running_loop().create_task(self._release(host))
            self._revoking[partition] = task
            task.add_done_callback(partial(self._revoked, partition))

    def _revoked(self, partition: int, task: asyncio.Task[None]) -> None:
        if self._revoking.get(partition) is task:
            del self._revoking[partition]

    async def _release(self, host: PartitionHost) -> None:
        """Let activities end, serving on → take nothing more → checkpoint → forget → tell.

        What is long comes first, so that requests are refused only for as long as the last,
        small checkpoint takes. One partition after the other: those that wait still serve.
        """
        host.wind_down()
        await asyncio.gather(
            self.pool.finish(host, self._drain_s), self.checkpointer.checkpoint(host)
        )
        async with self._freezing:
            host.freeze()
            while not host.closed and (self.checkpointer.is_due(host) or host.core.entries):
                await self.checkpointer.checkpoint(host)
            if not host.closed:
                # No await between here and the report: nothing may be written any more.
                host.closing = True
                host.discard()
                self._owner.released(host.partition, host.epoch)

    def discard(self, partition: int) -> None:
        """Drop the partition's memory at once, without a word."""
        opening = self._opening.pop(partition, None)
        if opening is not None:
            opening[1].cancel()
        revoking = self._revoking.pop(partition, None)
        if revoking is not None:
            revoking.cancel()
        host = self.hosts.get(partition)
        if host is not None:
            host.closing = True
            host.discard()

    def gone(self, host: PartitionHost, broken: str) -> None:
        """Note that a partition has been discarded (called by itself)."""
        if self.hosts.get(host.partition) is host:
            del self.hosts[host.partition]
        self._rounds.gone(host)
        self.checkpointer.discarded(host)
        self._intake.count_starts(host)
        if not host.closing:
            reason = f"broken: {broken}" if broken else "fenced"
            logger.warning("partition=%d epoch=%d lost, %s", host.partition, host.epoch, reason)
            self._owner.lost(host.partition, host.epoch, broken)

    # -- inputs --------------------------------------------------------------------------------

    def submit(self, call: Forward, answer: Answering) -> None:
        """Take a client's call; the answer comes by `answer`, now or later. Never raises."""
        refusal = self._intake.check(call)
        if refusal is not None:
            answer(Answer(call.seq, refusal=refusal))
            return
        call = self._intake.pinned(call)
        vetting = self._intake.vetting
        if vetting is not None and vetting.concerns(call):
            vetting.take(call, answer)
        else:
            self.admit(call, answer)

    def admit(self, call: Forward, answer: Answering) -> None:
        """Hand a call that has been checked to its partition, a start when there is room."""
        if not self._rounds.holds_back(call, answer):
            self.hand_over(call, answer)

    def hand_over(self, call: Forward, answer: Answering) -> None:
        """Hand a call to its partition at once."""
        host = self.hosts.get(call.partition)
        if host is None:
            message = f"partition {call.partition} is not served by this shard"
            answer(Answer(call.seq, refusal=r.Refusal("PartitionUnavailable", message, 0.1)))
            return
        self._guarded(host, host.submit, call, answer)

    def forget(self, wait: Forward, answer: Answering) -> None:
        """Drop a wait that was submitted with this `answer`: nobody wants it any more."""
        host = self.hosts.get(wait.partition)
        if host is not None:
            host.forget(wait, answer)

    def ask(self, ask: Ask, answer: Callable[[Answer], None]) -> None:
        """Answer a question about the hub from the store."""
        self._queries.ask(ask, answer)

    def receive(self, message: PartitionTraffic) -> None:
        """Take a message between partitions, if the one it is for is here."""
        to = message.destination if isinstance(message, Deliver) else message.source
        host = self.hosts.get(to)
        if host is not None:
            self._guarded(host, host.receive, message)

    def reached(self, partitions: set[int]) -> None:
        """Note that there is a new way to these partitions, and to us for those of ours."""
        for host in [each for each in self.hosts.values() if not each.frozen]:
            for partition in partitions:
                host.lanes.hasten(partition)
            if host.partition in partitions:
                host.ask_again()

    @staticmethod
    def _guarded(host: PartitionHost, act: Callable[..., None], *args: Any) -> None:
        """Act; a bug stops this partition, and others go on."""
        try:
            act(*args)
        except Exception as error:
            logger.exception("partition=%d stops", host.partition)
            host.discard(f"{type(error).__name__}: {error}")

    # -- turns ---------------------------------------------------------------------------------

    @property
    def starts_held(self) -> int:
        """How many starts wait for room."""
        return len(self._rounds.arrivals)

    def wake(self, host: PartitionHost, *, work: bool = True) -> None:
        """Run the partition's orchestrators soon, and commit what it has written."""
        if not host.closed:
            (self._rounds if work else self.committer).wake(host)

    def turn_of(self, host: PartitionHost, deadline_s: float) -> None:
        """Run the code of a partition until then; see `Rounds`."""
        self._guarded(host, self._turn_of, host, deadline_s)

    def _turn_of(self, host: PartitionHost, deadline_s: float) -> None:
        if host.run_turns(deadline_s):
            self._rounds.wake(host)
        core = host.core
        if core.speculative:
            host.speculate()
        if len(core.starting) != host.starts_waiting:
            self._intake.count_starts(host)
        self.committer.wake(host)
        due = core.timers.next_due()
        if due is not None and (self._alarm is None or due < self._alarm_at):
            self._arm(due)

    def _arm(self, due: int) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_at = due
        delay_s = min(ALARM_S_MAX, max(0.0, (due - self.clock.now()) / 1e6))
        self._alarm = asyncio.get_running_loop().call_later(delay_s, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        now = self.clock.now()
        following: int | None = None
        for host in list(self.hosts.values()):
            due = host.core.timers.next_due()
            if due is None:
                continue
            if due <= now:
                # Its turn arms the alarm again.
                self._guarded(host, host.fire, now)
            elif following is None or due < following:
                following = due
        if following is not None:
            self._arm(following)

    async def _tick(self) -> None:
        """See to what has no event of its own: silent lanes, old sessions, idle timers."""
        while True:
            await asyncio.sleep(TICK_S)
            before = self.clock.now() - SESSION_US
            # Not only after checkpoints: what is read fills the memory, too.
            self.checkpointer.evict()
            self.notices.tick()
            self._rounds.arrivals.let_in_old()
            self._intake.starts_taken = 0  # what was refused after all leads to no turn
            hosts = self.hosts.values()
            instances = sum(len(h.core.instances) + len(h.core.entities) for h in hosts)
            self.is_crowded = instances * RESIDENT_BYTES > CROWDED * self._resident_bytes_max
            for host in [each for each in hosts if not each.frozen]:
                host.lanes.tick()
                host.core.compact_timers()
                host.core.forget_sessions(before)

    # -- facts ---------------------------------------------------------------------------------

    def admitted(self, host: PartitionHost, resident: Resident, state_bytes: int) -> None:
        """Note that an instance or entity was loaded from the store (called by its partition)."""
        self.checkpointer.admitted(host, resident, state_bytes)

    def may_answer(self) -> bool:
        """Whether the lease still holds, so that what is read here is not stale."""
        return self.clock.monotonic_s() < self.committer.lease_until_s

    def progress(self) -> dict[int, tuple[int, int, int]]:
        """Return (applied, durable, checkpointed) LSN of each partition."""
        return {
            partition: (host.release.sealed, host.release.durable, host.checkpoint_lsn)
            for partition, host in self.hosts.items()
        }

    def quarantined(self) -> dict[int, list[str]]:
        """Return the instances of each partition that cannot be read, or the first of them."""
        return some_of({partition: host.core for partition, host in self.hosts.items()})

    def counters(self) -> dict[str, float]:
        """Return sums and levels of this shard, for metrics and reports."""
        hosts = self.hosts.values()
        return {
            "instances_resident": sum(len(host.core.instances) for host in hosts),
            "entities_resident": sum(len(host.core.entities) for host in hosts),
            "instances_idle_bytes": self.checkpointer.idle_bytes,
            "evictions": self.checkpointer.evictions,
            "replays": self.turns.replays,
            "activities_running": len(self.pool),
            "activities_lingering": self.pool.lingering,
            "bytes_in_flight": self.bytes_in_flight,
            "requests_in_flight": self.requests_in_flight,
            "purged": self._retention.purged,
            "instances_quarantined": sum(len(host.core.quarantined) for host in hosts),
            "instances_parked": sum(len(host.core.parked) for host in hosts),
            "messages_dropped": sum(host.core.dropped for host in hosts),
            "stale_results": sum(host.core.stale for host in hosts),
            "checkpoint_lag_s": self.checkpointer.lag_s,
            "checkpoint_wait_s": self.checkpointer.wait_s,
            "commit_wait_s": self.committer.wait_s,
            "journal_unsaved_bytes": sum(host.unsaved_bytes for host in hosts),
            **self.store.stats(),
        }

    def samples(self) -> Samples:
        """Return everything that is counted and measured, for `links.metrics`."""
        return self.meter.samples(self.counters())

    def running(self) -> list[str]:
        """Return what user code is running: an orchestrator that blocks, or activities."""
        turn = [self.turns.running] if self.turns.running else []
        return turn + self.pool.names()
