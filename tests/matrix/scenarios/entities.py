"""Entities: signals, calls, delays, failures, locks, and what they start."""

from __future__ import annotations

from dataclasses import field
from datetime import timedelta
from typing import Any

import pytest

from shardrt import App, EntityContext, EntityId, OrchestrationContext
from shardrt.errors import EntityFailed
from tests.matrix.stage import Stage, scenario, time_of

app = App()


@app.entity
class Ledger:
    """Remembers what it was told, in order."""

    lines: list[str] = field(default_factory=list)

    def add(self, line: str) -> int:
        self.lines.append(line)
        return len(self.lines)

    def add_time(self, ctx: EntityContext) -> None:
        self.lines.append(ctx.current_utc_datetime.isoformat())

    def spoil(self, line: str) -> None:
        self.lines.append(line)
        raise ValueError(f"no {line}")

    def hand_over(self, ctx: EntityContext, target: str) -> None:
        ctx.signal(EntityId(Ledger, target), Ledger.add, "handed over")
        ctx.start_orchestration(audit, target, instance_id=f"{ctx.key}.audit")
        ctx.delete_state()


def ledger(stage: Stage, of: str = "") -> str:
    return f"@ledger@{stage.id(of)}"


async def lines(stage: Stage, of: str = "") -> list[str]:
    found = await stage.client.get_entity(ledger(stage, of), state_type=Ledger)
    return found.state.lines if found else []


@scenario()
async def entities_do_what_they_are_asked_once_and_in_order(stage: Stage) -> None:
    for line in ("a", "b"):
        await stage.client.signal_entity(ledger(stage), "add", line)
    assert await stage.client.call_entity(ledger(stage), Ledger.add, "c") == 3
    await stage.middle()
    await stage.client.signal_entity(ledger(stage), "add", "d")
    assert await stage.client.call_entity(ledger(stage), Ledger.add, "e") == 5
    assert await lines(stage) == list("abcde")


@scenario()
async def delayed_signals_are_kept(stage: Stage) -> None:
    await stage.client.call_entity(ledger(stage), Ledger.add, "now")
    marker = await stage.client.start(now, instance_id=stage.id("now"))
    asked = time_of(await marker.result())
    await stage.client.signal_entity(ledger(stage), "add_time", at=timedelta(seconds=3))
    assert await lines(stage) == ["now"]
    await stage.middle()

    async def has_come() -> bool:
        return len(await lines(stage)) == 2

    await stage.until(has_come)
    assert time_of((await lines(stage))[1]) - asked > timedelta(seconds=2.5)


@app.orchestrator
async def now(ctx: OrchestrationContext) -> str:
    return ctx.current_utc_datetime.isoformat()


@scenario()
async def failed_operations_have_not_happened(stage: Stage) -> None:
    await stage.client.call_entity(ledger(stage), Ledger.add, "a")
    with pytest.raises(EntityFailed, match="no b"):
        await stage.client.call_entity(ledger(stage), Ledger.spoil, "b")
    await stage.middle()
    assert await lines(stage) == ["a"]
    with pytest.raises(EntityFailed, match="no c"):
        await stage.client.call_entity(ledger(stage), Ledger.spoil, "c")
    assert await lines(stage) == ["a"]


@app.orchestrator
async def audit(ctx: OrchestrationContext, key: str) -> int:
    await ctx.wait_for_event("go")
    return await ctx.call_entity(EntityId(Ledger, key), Ledger.add, "audited")


@scenario()
async def entities_signal_and_start_others(stage: Stage) -> None:
    await stage.client.call_entity(ledger(stage), Ledger.add, "mine")
    await stage.client.call_entity(ledger(stage), Ledger.hand_over, stage.id("heir"))

    async def is_handed_over() -> bool:
        return await lines(stage, "heir") == ["handed over"]

    await stage.until(is_handed_over)
    await stage.middle()
    await stage.client.raise_event(stage.id("audit"), "go")
    assert await stage.result("audit") == 2
    assert await lines(stage, "heir") == ["handed over", "audited"]
    assert await stage.client.get_entity(ledger(stage)) is None


@app.orchestrator
async def writes_together(ctx: OrchestrationContext, order: tuple[str, list[str]]) -> list[Any]:
    line, keys = order
    ids = [EntityId(Ledger, key) for key in keys]
    async with ctx.lock(*ids):
        counts = [await ctx.call_entity(each, Ledger.add, line) for each in ids[:1]]
        ctx.set_custom_status("locked")
        await ctx.wait_for_event("go")
        counts += [await ctx.call_entity(each, Ledger.add, line) for each in ids[1:]]
    return counts


@scenario()
async def locks_keep_others_out(stage: Stage) -> None:
    keys = [stage.id("x"), stage.id("y")]
    await stage.client.start(writes_together, ("first", keys), instance_id=stage.id("1"))
    await stage.shows("locked", "1")
    await stage.client.start(writes_together, ("second", keys[::-1]), instance_id=stage.id("2"))
    await stage.client.raise_event(stage.id("2"), "go")
    await stage.client.signal_entity(ledger(stage, "x"), "add", "outside")
    await stage.middle()

    async def waits_for_the_lock() -> bool:
        awaited = (await stage.client.explain(stage.id("2"))).awaited
        return "lock" in {each.kind for each in awaited}

    await stage.until(waits_for_the_lock)
    assert await lines(stage, "x") == ["first"]
    assert await lines(stage, "y") == []
    await stage.client.raise_event(stage.id("1"), "go")
    assert await stage.result("1") == [1, 1]
    await stage.result("2")
    assert await stage.client.call_entity(ledger(stage, "x"), Ledger.add, "last") == 4
    assert sorted(await lines(stage, "x")) == ["first", "last", "outside", "second"]
    assert await lines(stage, "y") == ["first", "second"]
