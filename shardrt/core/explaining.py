"""Why an instance does not move: what its state says that it waits for."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from shardrt.core.history import (
    EntityLockRequested,
    EntityOperationCalled,
    ExecutionSuspended,
    OrchestratorStarted,
    Status,
    TimerCreated,
)
from shardrt.core.requests import Awaited, Explanation
from shardrt.core.state import START_TIMER

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from shardrt.core.history import HistoryEvent
    from shardrt.core.partition import Partition
    from shardrt.core.state import Instance

NOTHING: Mapping[str, int] = {}
AWAITED_MAX = 200
"""So many things at most are named; a fan-out may wait for any number."""


def explain(
    core: Partition,
    instance_id: str,
    events: tuple[str, ...] | None,
    unclaimed: Mapping[str, int] = NOTHING,
    history: Iterable[HistoryEvent] = (),
) -> Explanation | None:
    """Return what an instance waits for; None if there is none of that id.

    Args:
        core: its partition, with the instance in memory if it exists.
        instance_id: the instance.
        events: names of those that its code waits for; None if nobody here has it resident.
        unclaimed: how many events of which names its code has and does not wait for.
        history: all that happened in its execution, if that is known; see `has_more_in_history`.
    """
    if instance_id in core.quarantined:
        found = core.quarantined_snapshot(instance_id)
        return Explanation(found, (Awaited(kind="repair", reason=found.reason),))
    instance = core.instances.get(instance_id)
    if instance is None:
        return None
    awaited = iter(()) if instance.is_final else _awaited(instance, events, _begun(history))
    named = tuple(islice(awaited, AWAITED_MAX))
    more = sum(1 for _ in awaited)
    if not instance.is_final:
        named += tuple(
            Awaited(kind="unclaimed", name=name, reason=f"{count} of them")
            for name, count in islice(unclaimed.items(), AWAITED_MAX)
        )
    return Explanation(core.snapshot(instance), named, more)


def has_more_in_history(instance: Instance) -> bool:
    """Whether it waits for something that only its history tells the beginning of."""
    if instance.is_final:
        return False
    waits = instance.suspended or instance.timers or instance.calls or instance.locks
    return bool(waits) and START_TIMER not in instance.timers


def _begun(history: Iterable[HistoryEvent]) -> dict[int | None, int]:
    """Return when what has these task ids was asked for; None: when it was last suspended."""
    found: dict[int | None, int] = {}
    at = 0
    for event in history:
        if isinstance(event, OrchestratorStarted):
            at = event.at
        elif isinstance(event, (TimerCreated, EntityOperationCalled, EntityLockRequested)):
            found[event.task_id] = at
        elif isinstance(event, ExecutionSuspended):
            found[None] = event.at
    return found


def _awaited(
    instance: Instance, events: tuple[str, ...] | None, begun: Mapping[int | None, int]
) -> Iterator[Awaited]:
    if instance.status is Status.SUSPENDED:
        yield Awaited(kind="resume", reason=instance.reason, since=begun.get(None))
    if instance.parked:
        yield Awaited(kind="code", name=instance.name, reason=instance.parked)
    elif instance.has_news():
        yield Awaited(kind="turn", since=instance.updated_at)
    if START_TIMER in instance.timers:
        due = instance.timers[START_TIMER]
        yield Awaited(kind="start", since=instance.created_at, due=due)
        return
    if events is None and instance.turn:
        yield Awaited(kind="events")
    for name in events or ():
        yield Awaited(kind="event", name=name)
    yield from _calls(instance)
    yield from _of_entities(instance, begun)
    for task_id, due in sorted(instance.timers.items(), key=lambda each: each[1]):
        yield Awaited(kind="timer", task_id=task_id, since=begun.get(task_id), due=due)


def _calls(instance: Instance) -> Iterator[Awaited]:
    for task_id, pending in instance.pending.items():
        yield Awaited(
            kind="slot" if pending.waits_for_slot else "activity",
            instance_id=pending.limit.limiter if pending.limit and pending.waits_for_slot else "",
            name=pending.name,
            task_id=task_id,
            attempt=pending.attempt,
            since=pending.first_at,
            due=pending.retry_at,
        )
    for task_id, child in instance.children.items():
        yield Awaited(
            kind="child",
            instance_id=child.instance_id,
            name=child.name,
            task_id=task_id,
            attempt=child.attempt,
            since=child.first_at,
            due=child.retry_at,
        )


def _of_entities(instance: Instance, begun: Mapping[int | None, int]) -> Iterator[Awaited]:
    for task_id, entity_id in instance.calls.items():
        since = begun.get(task_id)
        yield Awaited(kind="entity", instance_id=entity_id, task_id=task_id, since=since)
    for section in instance.locks.values():
        if not section.granted:
            task_id, since = section.task_id, begun.get(section.task_id)
            for entity_id in section.entities:
                yield Awaited(kind="lock", instance_id=entity_id, task_id=task_id, since=since)
