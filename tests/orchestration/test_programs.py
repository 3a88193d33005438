"""Whatever an orchestrator does, a replay cut anywhere does the same again.

Programs are data, run by one interpreting orchestrator: so the code is the same in every
run, and a failing program can be read and shrunk. `pytest --runs 2000` on this file plays so
many generated programs under each of several seeds of Python's hashes.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from shardrt.core.history import SubOrchestrationInstanceCreated, TaskScheduled, TimerCreated
from shardrt.errors import ActivityFailed, SubOrchestrationFailed
from shardrt.orchestration.app import App
from tests.orchestration.harness import Instance, World

if TYPE_CHECKING:
    from shardrt.core.history import Action, Arrival
    from shardrt.core.work import Step
    from shardrt.orchestration.context import OrchestrationContext

app = App()

EVENTS = ("red", "green")
TURNS_MAX = 60


@app.orchestrator
async def interpret(ctx: OrchestrationContext, program: list[Any]) -> list[Any]:
    log: list[Any] = []
    await run(ctx, log, program)
    return log


async def run(ctx: OrchestrationContext, log: list[Any], program: list[Any]) -> Any:
    name, *arguments = program
    result = await STATEMENTS[name](ctx, log, *arguments)
    log.append([name, repr(result) if isinstance(result, BaseException) else result])
    return result


async def call(ctx: OrchestrationContext, log: list[Any], kind: str) -> Any:
    return await ctx.call_activity(kind, len(log))


async def child(ctx: OrchestrationContext, log: list[Any], kind: str) -> Any:
    return await ctx.call_sub_orchestrator(kind, ctx.current_utc_datetime)


async def sleep(ctx: OrchestrationContext, log: list[Any], seconds: int) -> None:
    await asyncio.sleep(seconds)


async def event(ctx: OrchestrationContext, log: list[Any], name: str, limit: int | None) -> Any:
    try:
        return await ctx.wait_for_event(name, int, timeout=limit)
    except TimeoutError:
        return "no event"


async def facts(ctx: OrchestrationContext, log: list[Any]) -> Any:
    ctx.set_custom_status(len(log))
    ctx.send_event("other", "hello", len(log))
    return [str(ctx.new_uuid()), ctx.random.random(), ctx.current_utc_datetime.isoformat()]


async def patch(ctx: OrchestrationContext, log: list[Any], name: str) -> Any:
    return [ctx.patched(name), await ctx.call_activity(name) if ctx.patched(name) else None]


async def sequence(ctx: OrchestrationContext, log: list[Any], *programs: list[Any]) -> None:
    for each in programs:
        await run(ctx, log, each)


async def gather(ctx: OrchestrationContext, log: list[Any], *programs: list[Any]) -> Any:
    runs = [run(ctx, log, each) for each in programs]
    results = await asyncio.gather(*runs, return_exceptions=True)
    return [repr(result) for result in results]


async def group(ctx: OrchestrationContext, log: list[Any], *programs: list[Any]) -> None:
    async with asyncio.TaskGroup() as tasks:
        for each in programs:
            tasks.create_task(run(ctx, log, each))


async def race(ctx: OrchestrationContext, log: list[Any], *programs: list[Any]) -> Any:
    tasks = {asyncio.create_task(run(ctx, log, each)) for each in programs}
    done, rest = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)
    return [task.get_name() for task in done]


async def completed(ctx: OrchestrationContext, log: list[Any], *programs: list[Any]) -> None:
    runs = [run(ctx, log, each) for each in programs]
    for each in asyncio.as_completed(runs):
        with suppress(Exception):
            await each


async def attempt(
    ctx: OrchestrationContext, log: list[Any], program: list[Any], handler: list[Any]
) -> None:
    try:
        await run(ctx, log, program)
    except (ActivityFailed, SubOrchestrationFailed, ExceptionGroup, TimeoutError) as error:
        log.append(str(error))
        await run(ctx, log, handler)
    finally:
        await ctx.call_activity("good", "finally")


async def timeout(
    ctx: OrchestrationContext, log: list[Any], seconds: int, program: list[Any]
) -> Any:
    try:
        async with asyncio.timeout(seconds):
            return await run(ctx, log, program)
    except TimeoutError:
        return "timeout"


async def wait_for(
    ctx: OrchestrationContext, log: list[Any], seconds: int, program: list[Any]
) -> Any:
    try:
        return await asyncio.wait_for(run(ctx, log, program), seconds)
    except TimeoutError:
        return "timeout"


async def cancel(ctx: OrchestrationContext, log: list[Any], program: list[Any]) -> Any:
    task = asyncio.create_task(run(ctx, log, program))
    await ctx.create_timer(ctx.current_utc_datetime)
    await asyncio.sleep(0)
    return [task.cancel(), repr(await asyncio.gather(task, return_exceptions=True))]


async def leave(ctx: OrchestrationContext, log: list[Any], program: list[Any]) -> None:
    log.append(asyncio.create_task(run(ctx, log, program)).get_name())


STATEMENTS: dict[str, Any] = {
    each.__name__: each
    for each in (
        call, child, sleep, event, facts, patch, sequence, gather, group, race, completed, attempt,
        timeout, wait_for, cancel, leave,
    )
}  # fmt: skip

kinds = st.sampled_from(["good", "bad"])
seconds = st.integers(0, 9)
leaves = st.one_of(
    st.tuples(st.just("call"), kinds),
    st.tuples(st.just("child"), kinds),
    st.tuples(st.just("sleep"), seconds),
    st.tuples(st.just("event"), st.sampled_from(EVENTS), st.none() | seconds),
    st.tuples(st.just("facts")),
    st.tuples(st.just("patch"), st.sampled_from(["tax", "vat"])),
)


def extend(programs: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    several = st.sampled_from(["sequence", "sequence", "gather", "group", "race", "completed"])
    timed = st.sampled_from(["timeout", "wait_for"])
    return st.one_of(
        st.tuples(several, st.lists(programs, min_size=2, max_size=4)).map(
            lambda pair: (pair[0], *pair[1])
        ),
        st.tuples(st.just("attempt"), programs, programs),
        st.tuples(timed, seconds, programs),
        st.tuples(st.sampled_from(["cancel", "leave"]), programs),
    )


programs = st.lists(st.recursive(leaves, extend, max_leaves=15), min_size=2, max_size=6).map(
    lambda several: ("sequence", *several)
)


def answer(instance: Instance, action: Action) -> Arrival:
    if isinstance(action, TimerCreated):
        return instance.fired(action.task_id)
    assert isinstance(action, (TaskScheduled, SubOrchestrationInstanceCreated))
    if action.name == "bad":
        return instance.failed(action.task_id)
    return instance.completed(action.task_id, action.task_id)


def play(program: object, seed: int, replay_share: float) -> tuple[Instance, Step]:
    rng, cuts = random.Random(seed), random.Random(seed + 1)
    instance = Instance(app, "interpret", program)
    world = World(rng, answer, EVENTS, cancel_at=seed % 12)
    step = world.drive(instance, TURNS_MAX, lambda: cuts.random() < replay_share)
    return instance, step


def trace(instance: Instance) -> list[str]:
    """Return the whole history, the outcome and every custom status, as JSON."""
    last = instance.steps[-1].outcome
    statuses = [step.custom_status for step in instance.steps]
    return [msgspec.json.encode(each).decode() for each in [*instance.history, last, statuses]]


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(programs, st.integers(0, 2**32))
def test_a_replay_cut_anywhere_does_the_same(program: object, seed: int):
    live, _ = play(program, seed, 0.0)
    cut, _ = play(program, seed, 0.4)
    assert trace(cut) == trace(live)
    replayed, _ = play(program, seed, 1.0)
    assert trace(replayed) == trace(live)


def histories_of_fixed_programs() -> list[str]:
    """Return what a few programs with many sets of tasks did; run with several hash seeds."""
    lines = []
    for seed in range(8):
        calls = [["attempt", ["call", kind], ["facts"]] for kind in ("good", "bad") * 4]
        waits = [["event", name, 3] for name in EVENTS]
        program = ["sequence", ["race", *calls], ["completed", *calls], ["race", *waits, *calls]]
        instance, _ = play(program, seed, 0.2)
        lines += trace(instance)
    return lines


def under_hash_seed(hash_seed: str, expression: str) -> str:
    """Evaluate in an interpreter of its own, and return the result as JSON."""
    script = (
        "import json; from tests.orchestration.test_programs import *; "
        f"print(json.dumps({expression}))"
    )
    return subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"PYTHONHASHSEED": hash_seed},
        cwd=Path(__file__).parents[2],
        check=True,
        capture_output=True,
        text=True,
    ).stdout


def test_the_seed_of_python_hashes_does_not_matter():
    outputs = [
        under_hash_seed(hash_seed, "histories_of_fixed_programs()")
        for hash_seed in ("0", "1", "4242")
    ]
    assert json.loads(outputs[0])
    assert len(set(outputs)) == 1


PROGRAMS_DEFAULT = 60
SEVERAL = ("sequence", "gather", "group", "race", "completed")


def generated(rng: random.Random, depth: int = 3) -> list[Any]:
    """Return a program drawn from `rng`."""
    kind = rng.random()
    if depth == 0 or kind < 0.3:
        name = rng.choice(["call", "child", "sleep", "event", "facts", "patch"])
        arguments: dict[str, list[Any]] = {
            "sleep": [rng.randint(0, 9)],
            "event": [rng.choice(EVENTS), rng.choice([None, 2, 6])],
            "facts": [],
            "patch": [rng.choice(["tax", "vat"])],
        }
        return [name, *arguments.get(name, [rng.choice(["good", "good", "bad"])])]
    parts = [generated(rng, depth - 1) for _ in range(rng.randint(2, 4))]
    if kind < 0.75:
        return [rng.choice(SEVERAL), *parts]
    if kind < 0.85:
        return ["attempt", *parts[:2]]
    if kind < 0.93:
        return [rng.choice(["timeout", "wait_for"]), rng.randint(0, 9), parts[0]]
    return [rng.choice(["cancel", "leave"]), parts[0]]


def play_generated(count: int) -> dict[str, Any]:
    """Play programs live and by replays cut at random points and everywhere."""
    digest = hashlib.sha256()
    turns, diverging = 0, []
    for seed in range(count):
        program = ["sequence", *(generated(random.Random(f"{seed} {n}")) for n in range(3))]
        live, _ = play(program, seed, 0.0)
        traces = trace(live)
        turns += live.turn
        if any(trace(play(program, seed, share)[0]) != traces for share in (0.4, 1.0)):
            diverging.append(seed)
        digest.update("\n".join(traces).encode())
    return {"turns": turns, "diverging": diverging, "digest": digest.hexdigest()}


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_generated_programs_do_the_same_by_replay_under_any_hash_seed(
    request: pytest.FixtureRequest,
):
    count = request.config.getoption("--runs") or PROGRAMS_DEFAULT
    verdicts = [
        json.loads(under_hash_seed(hash_seed, f"play_generated({count})"))
        for hash_seed in ("1", "4242")
    ]
    assert verdicts[0] == verdicts[1]
    assert verdicts[0]["diverging"] == []
    assert verdicts[0]["turns"] > 2 * count
