"""Whether nothing was lost and nothing ran wrong, from three independent witnesses.

What the client was told, what the ledger saw, and what the store holds.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from shardrt.errors import InstanceNotFound
from tests.chaos.auditing import check_books, check_tally
from tests.chaos.bank import Transfer

if TYPE_CHECKING:
    from shardrt import Client, HistoryEvent
    from tests.chaos.ledger import Ledger
    from tests.chaos.load import Instance
    from tests.chaos.tallying import TallyLog

OUTCOMES = {"TaskCompleted", "TaskFailed"}
SHOWN_MAX = 20
LAG_MAX_S = 15.0
LAG_POLL_S = 0.5


@dataclass
class Verdict:
    """What was counted, and every fault that was found."""

    counts: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def text(self) -> str:
        counts = ", ".join(f"{count} {what}" for what, count in sorted(self.counts.items()))
        shown = "\n".join(self.faults[:SHOWN_MAX])
        return f"{counts}\n{len(self.faults)} faults\n{shown}"


async def judge(
    client: Client, instances: list[Instance], tallies: list[TallyLog], ledger: Ledger
) -> Verdict:
    """Check everything; faults are collected, so that one run shows all of them."""
    verdict = Verdict()
    check_client_log(verdict, instances)
    known = {instance.instance_id: instance for instance in instances}
    for instance in instances:
        if instance.ended:
            await check_history(verdict, client, instance.instance_id, ledger)
        elif instance.acknowledged:
            verdict.faults.append(await stuck(client, instance.instance_id))
    await check_list(verdict, client, known)
    await check_entities(verdict, client, instances, tallies)
    verdict.counts["effects"] = len(ledger)
    verdict.counts["effects repeated"] = ledger.repeated()
    return verdict


async def check_entities(
    verdict: Verdict, client: Client, instances: list[Instance], tallies: list[TallyLog]
) -> None:
    for log in tallies:
        verdict.counts["operations acknowledged"] += len(log.acknowledged)
        verdict.counts["operations unknown"] += len(log.unknown)
        verdict.faults += await check_tally(client, log)
    transfers = {
        each.instance_id: msgspec.convert(each.result, Transfer)
        for each in instances
        if each.kind.name == "transfer" and each.result is not None
    }
    verdict.counts["transfers"] = len(transfers)
    verdict.faults += await check_books(client, transfers)


def check_client_log(verdict: Verdict, instances: list[Instance]) -> None:
    for instance in instances:
        verdict.counts["starts"] += 1
        verdict.counts["starts acknowledged"] += instance.acknowledged
        verdict.counts["completed"] += instance.ended and not instance.wrong
        for what, log in (
            ("events acknowledged", instance.sent.acknowledged),
            ("events unknown", instance.sent.unknown),
        ):
            verdict.counts[what] += sum(map(len, log.values()))
        if instance.wrong:
            verdict.faults.append(f"{instance.instance_id}: {instance.wrong}")


async def stuck(client: Client, instance_id: str) -> str:
    """Say what is known about an acknowledged instance that did not end."""
    status = await client.get(instance_id)
    if status is None:
        return f"{instance_id}: was acknowledged and is gone"
    kinds = [event.kind for event in await client.history(instance_id)]
    return f"{instance_id}: stuck, {status.status} since {status.updated_at}: {kinds[-8:]}"


async def check_history(verdict: Verdict, client: Client, instance_id: str, ledger: Ledger) -> None:
    """Check the last execution: one outcome per call, each from a run that the ledger saw."""
    try:
        history = await client.history(instance_id)
    except InstanceNotFound:
        verdict.faults.append(f"{instance_id}: had ended and is gone")
        return
    verdict.counts["histories"] += 1
    faults = [*outcome_faults(history), *end_faults(history)]
    for event in history:
        if event.kind == "TaskCompleted":
            verdict.counts["outcomes"] += 1
            faults += effect_faults(event, instance_id, ledger)
    verdict.faults += [f"{instance_id}: {fault}" for fault in faults]


def outcome_faults(history: list[HistoryEvent]) -> list[str]:
    scheduled = Counter(event.task_id for event in history if event.kind == "TaskScheduled")
    outcomes = Counter(event.task_id for event in history if event.kind in OUTCOMES)
    return [
        f"activity {task_id} was scheduled {scheduled[task_id]} times"
        f" and has {outcomes[task_id]} outcomes"
        for task_id in scheduled | outcomes
        if (scheduled[task_id], outcomes[task_id]) != (1, 1)
    ]


def end_faults(history: list[HistoryEvent]) -> list[str]:
    kinds = [event.kind for event in history]
    if kinds.count("ExecutionStarted") != 1 or kinds[0] != "ExecutionStarted":
        return [f"does not start once: {kinds}"]
    if kinds.count("ExecutionCompleted") != 1 or kinds[-1] != "ExecutionCompleted":
        return [f"does not end once: {kinds}"]
    return []


def effect_faults(event: HistoryEvent, instance_id: str, ledger: Ledger) -> list[str]:
    result: Any = event.result
    assert event.task_id is not None, "activities have one"
    if result["token"] in ledger.tokens(instance_id, event.task_id):
        return []
    return [f"activity {event.task_id} has a result without effect: {result}"]


async def check_list(verdict: Verdict, client: Client, known: dict[str, Instance]) -> None:
    """Check that the store lists what was started, its children, and nothing else.

    The list lags behind, but not for long.
    """
    deadline_s = time.monotonic() + LAG_MAX_S
    faults = await list_faults(verdict, client, known)
    while faults and time.monotonic() < deadline_s:
        await asyncio.sleep(LAG_POLL_S)
        faults = await list_faults(verdict, client, known)
    verdict.faults += faults


async def list_faults(verdict: Verdict, client: Client, known: dict[str, Instance]) -> list[str]:
    listed: Counter[str] = Counter()
    faults: list[str] = []
    async for status in client.list(page_size=500):
        listed[status.instance_id] += 1
        is_child = status.parent_instance_id is not None
        if not is_child and status.instance_id not in known:
            faults.append(f"{status.instance_id}: nobody started it")
        if is_child and not status.is_final:
            faults.append(f"{status.instance_id}: a child that is still {status.status}")
    faults += [f"{each}: is listed {n} times" for each, n in listed.items() if n > 1]
    faults += [
        f"{each.instance_id}: was acknowledged and is not listed"
        for each in known.values()
        if each.acknowledged and not listed[each.instance_id]
    ]
    verdict.counts["instances in the store"] = len(listed)
    return faults
