"""Runs users' code for the work items of partitions, in the shard's own loop.

A resident coroutine answers at once. One that is not resident, after a recovery or an
eviction, is rebuilt from its history first; if that must be read from the store, the work
item stays out meanwhile and its partition goes on with others.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from msgspec.structs import replace

from shardrt.core.entity import EntityStep, EntityWork
from shardrt.core.ground import started_of
from shardrt.core.history import EventRaised
from shardrt.core.messages import RewindChild, StartChild, StartInstance
from shardrt.core.work import Parked, Step, WorkItem
from shardrt.errors import RecordCorrupt, ShardrtError
from shardrt.host.black_box import Orchestrator, note_of_turn
from shardrt.host.condemning import DEADLY

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from shardrt.core.history import HistoryEvent
    from shardrt.core.messages import Message
    from shardrt.core.state import Instance
    from shardrt.host.black_box import BlackBox
    from shardrt.host.bounds import Bounds
    from shardrt.host.partition_host import PartitionHost
    from shardrt.orchestration.entity_executor import EntityExecutor
    from shardrt.orchestration.executor import Executor

logger = logging.getLogger(__name__)

REBUILD_RETRY_S = 1.0
_STARTS = (StartChild, StartInstance, RewindChild)


class Turns:
    """The local executor and what it has in hand."""

    def __init__(
        self, executor: Executor, entities: EntityExecutor, bounds: Bounds, box: BlackBox
    ) -> None:
        self.executor = executor
        self.entities = entities
        self._bounds = bounds
        self._box = box
        self._running: WorkItem | EntityWork | None = None
        self.ran = 0
        """Turns, so far, and those of entities."""
        self.replays = 0
        self._rebuilding: set[asyncio.Task[None]] = set()
        self.condemned: set[Orchestrator] = set()
        """Orchestrators that are not run; see `condemning`."""
        self.on_pardon: Callable[[Orchestrator], None] = lambda _: None
        """Told if somebody wants one of these to be run again."""

    @property
    def running(self) -> str:
        """Name and instance of the code that is running at this moment; empty if there is none."""
        what = self._running
        if what is None:
            return ""
        name = what.name if isinstance(what, EntityWork) else what.started.name
        return f"{name} {what.instance_id}"

    def run(self, host: PartitionHost, deadline_s: float) -> bool:
        """Run turns until none is left or time is up; return whether some are left."""
        core = host.core
        clock = host.shard.clock
        if core.entities_ready:
            # First, but with half of the time: many busy entities must not hold up the rest.
            now_s = clock.monotonic_s()
            self._run_entities(host, now_s + (deadline_s - now_s) / 2)
        now = clock.now()  # once: these turns are as good as simultaneous
        while (item := core.next_work(now)) is not None:
            self.ran += 1
            if item.instance_id in host.forbidden:
                core.condemn(item.instance_id, host.forbidden[item.instance_id], clock.now())
                continue
            for arrival in item.arrivals:
                if type(arrival) is EventRaised:
                    host.shard.meter.add("events_delivered")
            if self.condemned and self._is_condemned(item):
                self.executor.drop(item.instance_id)
                parked = Parked(DEADLY)
                core.step(Step(item.instance_id, item.execution_id, item.turn, outcome=parked))
            elif item.turn == 0 or self.executor.holds(
                item.instance_id, item.execution_id, item.turn
            ):
                self._finish(host, self._run(item, None))
            else:
                self._rebuild(host, item)
            if clock.monotonic_s() >= deadline_s:
                break
        return self._are_left(host)

    def _is_condemned(self, item: WorkItem) -> bool:
        return Orchestrator(item.started.name, item.started.version) in self.condemned

    def _are_left(self, host: PartitionHost) -> bool:
        """See to what turns leave behind; return whether there are more of them."""
        core = host.core
        if core.abandoned:
            for instance_id in core.abandoned:
                self.executor.drop(instance_id)
            core.abandoned.clear()
        if core.newly_parked:
            for each in core.newly_parked:
                host.shard.notices.parked(each.instance_id, each.name, each.parked)
            core.newly_parked.clear()
        if core.has_turns:
            return True
        host.history.forget()
        return False

    def _run_entities(self, host: PartitionHost, deadline_s: float) -> None:
        core = host.core
        clock = host.shard.clock
        while (work := core.next_entity_work(clock.now())) is not None:
            self.ran += 1
            if (reason := host.forbidden.get(work.instance_id)) is not None:
                core.step_entity(EntityStep(work.instance_id, work.token, parked=reason))
                continue
            step = self._run_entity(work)
            core.step_entity(step)
            if step.parked:
                host.shard.notices.parked(work.instance_id, work.name, step.parked)
            if clock.monotonic_s() >= deadline_s:
                break

    def _run_entity(self, work: EntityWork) -> EntityStep:
        self._running = work
        if self._box.watches:
            self._box.enter(work.instance_id.encode())
        try:
            return self.entities.run(work)
        except Exception as error:
            # A bug of ours, not the user's: the entity stays as it is, for all to see.
            logger.exception("entity=%s cannot be run", work.instance_id)
            reason = f"the runtime failed to run it: {type(error).__name__}: {error}"
            return EntityStep(work.instance_id, work.token, parked=reason)
        finally:
            if self._box.watches:
                self._box.leave()
            self._running = None

    def pinned(self, messages: Sequence[Message]) -> Sequence[Message]:
        """Return messages in which each start of an instance says which version is to run."""
        return [self._pinned(each) if isinstance(each, _STARTS) else each for each in messages]

    def _pinned(self, start: StartChild | StartInstance | RewindChild) -> Message:
        version = None
        if start.version is None:
            version = self.executor.newest_version(start.name)
        return start if version is None else replace(start, version=version)

    def drop(self, instance_id: str) -> None:
        """Forget the resident code of an instance."""
        self.executor.drop(instance_id)

    def revive(self, instance: Instance, history: Sequence[HistoryEvent]) -> None:
        """Make the code of an instance resident, if it can be run."""
        item = WorkItem(
            instance.instance_id,
            instance.execution_id,
            instance.turn,
            instance.updated_at,
            started_of(instance),
            (),
            instance.seed,
        )
        self._running = item
        if self._box.watches:
            self._box.enter(note_of_turn(item.instance_id, item.started))
        self.replays += 1
        try:
            self.executor.revive(item, history)
        except Exception:
            logger.exception("instance=%s cannot be rebuilt", instance.instance_id)
        finally:
            self._box.leave()
            self._running = None

    def _run(self, item: WorkItem, history: list[HistoryEvent] | None) -> Step:
        self._running = item
        if self._box.watches:
            self._box.enter(note_of_turn(item.instance_id, item.started))
        try:
            return self.executor.run(item, history)
        except Exception as error:
            # A bug of ours, not the user's: the instance stays as it is, for all to see.
            logger.exception("instance=%s cannot be run", item.instance_id)
            self.executor.drop(item.instance_id)
            reason = f"the runtime failed to run it: {type(error).__name__}: {error}"
            return Step(item.instance_id, item.execution_id, item.turn, outcome=Parked(reason))
        finally:
            if self._box.watches:
                self._box.leave()
            self._running = None

    def _finish(self, host: PartitionHost, step: Step) -> None:
        checked = step if self._bounds.is_plain(step) else self._bounds.step(step)
        if not host.core.step(checked) or checked is not step:
            self.executor.drop(step.instance_id)

    def _rebuild(self, host: PartitionHost, item: WorkItem) -> None:
        self.replays += 1
        history = host.history.take(item.instance_id)
        if history is not None:
            self._finish(host, self._run(item, history))
            return
        task = asyncio.get_running_loop().create_task(self._rebuild_from_store(host, item))
        self._rebuilding.add(task)
        task.add_done_callback(self._rebuilding.discard)

    async def _rebuild_from_store(self, host: PartitionHost, item: WorkItem) -> None:
        step = Step(item.instance_id, item.execution_id, item.turn)
        while not host.frozen and self._is_current(host, item):
            try:
                history = await host.history.read(item.instance_id)
            except RecordCorrupt as error:
                parked = Parked(f"quarantined: its stored history {error}")
                step = Step(item.instance_id, item.execution_id, item.turn, (), parked)
                break
            except ShardrtError as error:
                logger.warning("instance=%s cannot be rebuilt: %s", item.instance_id, error)
                await asyncio.sleep(REBUILD_RETRY_S)
                continue
            if history is not None and not host.frozen and self._is_current(host, item):
                step = self._run(item, history)
            break
        if not host.frozen:
            # Also a step that is refused: only then is the work item no longer out.
            self._finish(host, step)
            host.shard.wake(host)

    @staticmethod
    def _is_current(host: PartitionHost, item: WorkItem) -> bool:
        instance = host.core.instances.get(item.instance_id)
        return (
            instance is not None
            and not instance.is_final
            and instance.execution_id == item.execution_id
        )
