"""What tests of the engine do all the time, in one line each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Raw

from shardrt.core import history as h, requests as r
from shardrt.core.work import Outcome, Step, WorkItem

if TYPE_CHECKING:
    from shardrt.core.effects import RunActivity
    from tests.core.world import World

SECOND = 1_000_000
ONE, TWO, THREE = Raw(b"1"), Raw(b"2"), Raw(b"3")
BROKEN = h.Failure(type="OSError", message="broken")


def origin(seq: int, client: str = "ann", low: int = 0) -> r.Origin:
    return r.Origin(client, seq, low)


def start(world: World, instance_id: str = "a", seq: int = 1, **options: Any) -> object:
    """Start an instance; return the answer."""
    return world.request(instance_id, r.Start("code", ONE, **options), origin(seq))


def ask(world: World, request: r.Request, seq: int, instance_id: str = "a") -> object:
    """Ask something of an instance; return the answer."""
    return world.request(instance_id, request, origin(seq))


def take(world: World, instance_id: str = "a") -> WorkItem:
    """Take the next turn of a node in hand; it must be that instance's."""
    item = world.next_work(world.node_of(instance_id))
    assert item is not None
    assert item.instance_id == instance_id
    return item


def step_of(
    item: WorkItem,
    *actions: h.Action,
    outcome: Outcome | None = None,
    status: Raw | None = None,
) -> Step:
    """Return an answer to a turn."""
    ids = (item.instance_id, item.execution_id, item.turn)
    return Step(*ids, actions, outcome, status)


def turn(
    world: World,
    *actions: h.Action,
    instance_id: str = "a",
    outcome: Outcome | None = None,
    status: Raw | None = None,
) -> WorkItem:
    """Run the next turn of an instance, and commit."""
    item = take(world, instance_id)
    assert world.step(step_of(item, *actions, outcome=outcome, status=status))
    world.commit_all()
    return item


def activity(task_id: int, retry: h.Retry | None = None, **options: Any) -> h.TaskScheduled:
    return h.TaskScheduled(task_id, "act", ONE, retry, **options)


def child(
    task_id: int, instance_id: str = "b", retry: h.Retry | None = None
) -> h.SubOrchestrationInstanceCreated:
    return h.SubOrchestrationInstanceCreated(task_id, instance_id, "kid", TWO, None, retry)


def run_of(world: World, task_id: int) -> RunActivity:
    """Take the newest start of an activity."""
    run = [each for each in world.running if each.task_id == task_id][-1]
    world.running.remove(run)
    return run


def arrivals(world: World, instance_id: str = "a") -> tuple[h.Arrival, ...]:
    """Return what the next turn of an instance would see."""
    return tuple(world.instance(instance_id).inbox)


def data_of(arrived: tuple[h.Arrival, ...]) -> list[bytes]:
    """Return the payloads of the external events among what arrived."""
    return [bytes(event.data) for event in arrived if isinstance(event, h.EventRaised)]
