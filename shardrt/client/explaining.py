"""Why an instance does not move, for people: what it waits for, and how that stands.

The owner of the instance says what it waits for; children, locked entities and limiters live
elsewhere and are asked in turn. If nobody owns the instance's partition, that is the answer.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from shardrt.client.views import OrchestrationStatus, status_of, to_datetime
from shardrt.core import requests as r
from shardrt.core.ids import partition_of
from shardrt.core.limiter import limit_and_key, slot_of
from shardrt.errors import (
    ConnectionLost,
    InstanceNotFound,
    Overloaded,
    PartitionUnavailable,
    ShardrtError,
)
from shardrt.links.admin import Cluster

if TYPE_CHECKING:
    from datetime import datetime

    from msgspec import Raw

    from shardrt.links.admin import Question

_ELSEWHERE = {"child", "lock", "slot"}
"""What is asked how it stands."""
PATIENCE_S = 5.0
"""So long is an owner asked before the cluster is asked for the owner."""
REASON_S_MAX = 1.0
"""So much longer than its timeout may a wait take that was in vain."""
OTHERS_MAX = 20
"""So many children, entities and limiters at most are asked how they stand."""


class Caller(Protocol):
    """Whoever takes requests and questions."""

    async def call(self, instance_id: str, request: r.Request) -> r.Result | None:
        """Ask the owner of an instance."""
        ...

    async def ask(self, question: Question) -> Raw:
        """Ask about the hub."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Awaited:
    """One thing that an instance waits for."""

    kind: str
    """``repair`` (what is stored of it cannot be read), ``resume`` (it is suspended), ``code``
    (it is parked), ``turn``, ``start``, ``activity``, ``slot`` (of the limit of an activity),
    ``timer``, ``child``, ``entity``, ``lock``, ``event``, ``events`` (which ones is not known,
    since its code cannot be rebuilt), ``unclaimed`` (events that have come, and that nobody waits
    for), or ``owner`` (of its partition)."""
    text: str
    """The whole of it, for people."""
    name: str = ""
    """Of the activity, the event, or the child's orchestrator."""
    instance_id: str = ""
    """The child, the entity, or the limiter."""
    status: str = ""
    """Of the child, or of the line for the slot."""
    task_id: int | None = None
    attempt: int | None = None
    since: datetime | None = None
    """When it began to wait, if that is known: not for events."""
    due: datetime | None = None
    """When it fires, starts, or is tried again."""
    reason: str = ""
    """Why it is suspended, parked or unavailable; who has the lock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Why an instance does not move."""

    instance_id: str
    status: OrchestrationStatus | None
    """None if its owner cannot be reached."""
    awaited: list[Awaited]
    more: int = 0
    """How many further things are left out."""

    @property
    def summary(self) -> str:
        """One line."""
        if self.status is None:
            return self.awaited[0].text
        state = f"{self.instance_id} is {self.status.status}"
        if self.status.is_final:
            return state
        if not self.awaited:
            return f"{state} and waits for nothing that would ever come"
        texts = [each.text for each in self.awaited[:3]]
        rest = len(self.awaited) - len(texts) + self.more
        return f"{state}: {'; '.join(texts)}" + (f"; and {rest} more" if rest else "")


async def explain(caller: Caller, instance_id: str, *, times: bool = True) -> Explanation:
    """Return what an instance waits for; also since when, where only its history tells `times`.

    Raises:
        InstanceNotFound: there is no such instance.
    """
    try:
        async with asyncio.timeout(PATIENCE_S):
            found: Any = await caller.call(instance_id, r.Explain(times))
    except (TimeoutError, PartitionUnavailable, Overloaded, ConnectionLost) as error:
        return await _without_owner(caller, instance_id, error)
    if found is None:
        raise InstanceNotFound(f"no instance {instance_id!r}")
    others = [each for each in found.awaited if each.kind in _ELSEWHERE][:OTHERS_MAX]
    states = await asyncio.gather(*(_state_of(caller, found.instance, each) for each in others))
    known = {id(each): state for each, state in zip(others, states, strict=True)}
    awaited = [_awaited(each, *known.get(id(each), ("", ""))) for each in found.awaited]
    return Explanation(
        instance_id=instance_id,
        status=status_of(found.instance),
        awaited=awaited,
        more=found.more,
    )


async def not_ended(caller: Caller, instance_id: str, timeout_s: float) -> str:
    """Return what to say when an instance has not ended in time, with what it waits for.

    That is asked for now, and left out if the answer takes long.
    """
    text = f"instance {instance_id!r} has not ended within {timeout_s:g} s"
    try:
        async with asyncio.timeout(REASON_S_MAX):
            explanation = await explain(caller, instance_id, times=False)
    except (TimeoutError, ShardrtError):
        return text
    return f"{text}; {explanation.summary}"


async def _state_of(caller: Caller, instance: r.Snapshot, other: r.Awaited) -> tuple[str, str]:
    """Return the status of a child or of a line for a slot, or who has a lock."""
    request: r.Request = r.Get() if other.kind == "child" else r.GetEntity()
    if other.kind == "slot":
        ids = (instance.instance_id, instance.execution_id)
        request = r.GetSlot(slot_of(*ids, other.task_id or 0, other.attempt or 1))
    try:
        async with asyncio.timeout(PATIENCE_S):
            found: Any = await caller.call(other.instance_id, request)
    except (TimeoutError, ShardrtError):
        return "not reachable", ""
    if isinstance(found, r.Snapshot):
        return found.status, found.reason
    if other.kind == "slot":
        return _line(found), ""
    holder = getattr(found, "locked_by", None)
    return "", f"held by {holder}" if holder else ""


def _line(slot: r.SlotSnapshot | None) -> str:
    if slot is None:
        return "not in line yet"
    if slot.position == 0:
        return "granted just now"
    text = f"position {slot.position} of {slot.waiting}, {slot.holders} at work"
    return text if slot.due is None else f"{text}, next one at {to_datetime(slot.due)}"


async def _without_owner(caller: Caller, instance_id: str, error: Exception) -> Explanation:
    # Where there is nobody to ask about the cluster, null comes back.
    view: dict[str, Any] | None = msgspec.json.decode(await caller.ask(Cluster()))
    rows = (view or {}).get("partitions") or []
    reason = str(error) or "no answer"
    if rows:
        number = partition_of(instance_id, len(rows))
        row = next(each for each in rows if each["partition"] == number)
        owner, trouble = row.get("owner"), row.get("trouble")
        reason = f"partition {number} " + (
            f"of {owner} does not answer" if owner else "has no owner"
        )
        reason += f": {trouble}" if trouble else ""
    awaited = Awaited(kind="owner", text=reason, reason=reason)
    return Explanation(instance_id=instance_id, status=None, awaited=[awaited])


def _awaited(each: r.Awaited, status: str, reason: str) -> Awaited:
    since = None if each.since is None else to_datetime(each.since)
    due = None if each.due is None else to_datetime(each.due)
    reason = each.reason or reason
    return Awaited(
        kind=each.kind,
        text=_text(each, due, status, reason),
        name=each.name,
        instance_id=each.instance_id,
        status=status,
        task_id=each.task_id,
        attempt=each.attempt,
        since=since,
        due=due,
        reason=reason,
    )


def _text(each: r.Awaited, due: datetime | None, status: str, reason: str) -> str:
    state = f"next attempt at {due}" if due else status
    if each.kind == "activity":
        state = state or "running or queued"
    why = f" ({reason})" if reason else ""
    template = _TEXTS[each.kind]
    limit = _limit_title(each.instance_id) if each.kind == "slot" else ""
    return template.format(each=each, due=due, state=state or "not asked", limit=limit) + why


def _limit_title(limiter: str) -> str:
    name, key = limit_and_key(limiter)
    return f"limit {name!r}" + ("" if key is None else f" key {key!r}")


_TEXTS = {
    "repair": "its stored state to be repaired, or it to be purged by force",
    "resume": "to be resumed",
    "code": "code that can run it",
    "turn": "its next turn",
    "start": "its start at {due}",
    "activity": "activity {each.name!r}, attempt {each.attempt}, {state}",
    "slot": "a slot of {limit} for activity {each.name!r}, {state}",
    "child": "child {each.instance_id!r}, {state}",
    "entity": "the answer of entity {each.instance_id!r}",
    "lock": "the lock of entity {each.instance_id!r}",
    "event": "event {each.name!r}",
    "events": "events, perhaps (not known)",
    "unclaimed": "nothing of event {each.name!r}, which has come, and which nobody waits for",
    "timer": "timer due at {due}",
}
