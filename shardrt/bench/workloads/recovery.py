"""All processes of a host are killed at once (kill -9), and it is started again.

Two things go on meanwhile: callers run `hello` and must get every answer; and many instances
wait, with a history behind them. From the kill on: when the host is ready, when every partition
answers, when a waiting instance has moved on, and how fast histories are replayed when all of
them move.

Always starts a host of its own.
"""

from __future__ import annotations

import asyncio
import random
import time
from itertools import pairwise
from typing import TYPE_CHECKING

from shardrt import App, OrchestrationContext, StartRequest
from shardrt.bench.errors import RunFailed, check
from shardrt.bench.workloads.hello import EXPECTED, hello
from shardrt.bench.workloads.sequence import add_one

if TYPE_CHECKING:
    from shardrt.bench.bench import Bench
    from shardrt.bench.hosts import Served

app = App()

WAITING = "waiting"
POLL_S = 0.05
BATCH = 500
LOAD_SHARE = 4
"""Callers at work while the host is killed: a quarter of the concurrency."""
LOAD_S = 1.0
"""For how long, before and after."""


@app.orchestrator(name="bench.open")
async def open_instance(ctx: OrchestrationContext, steps: int) -> int:
    """Count to `steps` by activities, wait for the event "go", and add what it brings."""
    reached = 0
    for _ in range(steps):
        reached = await ctx.call_activity(add_one, reached)
    ctx.set_custom_status(WAITING)
    return reached + await ctx.wait_for_event("go", int)


async def run(bench: Bench) -> None:
    """Open instances, kill, start again, and let all of them end."""
    served = bench.host.served
    if served is None:
        raise RunFailed("this workload kills its host, so it must be its own")
    ids = await _open(bench)
    history = len(await bench.client.history(ids[0]))
    killed_s = await _kill_under_load(bench, served, ids)

    async def wake(number: int) -> None:
        await _wake(bench, ids[number + 1], number)

    rest = len(ids) - 1
    if rest:
        async with bench.accounting(rest):
            timing = await bench.loop("waking", wake, rest)
            bench.figures["kill_to_all_done_s"] = round(time.perf_counter() - killed_s, 3)
        bench.note(timing)
        replayed = rest * history / timing.seconds
        bench.figures["history_events_replayed_per_s"] = round(replayed, 1)
    bench.figures["history_events_each"] = history


async def _open(bench: Bench) -> list[str]:
    n, steps = bench.options.n, bench.size("steps")
    ids: list[str] = []
    for first in range(0, n, BATCH):
        wanted = [StartRequest(open_instance, steps)] * min(BATCH, n - first)
        ids += [handle.instance_id for handle in await bench.client.start_many(wanted)]

    async def wait(number: int) -> None:
        while True:
            found = await bench.client.get(ids[number])
            if found is not None and found.custom_status == WAITING:
                return
            await asyncio.sleep(POLL_S)

    await bench.loop("opening", wait, n, concurrency=bench.options.concurrency)
    # Those made together are in one partition, and who is woken is no matter of that.
    random.Random(n).shuffle(ids)  # noqa: S311 - not for secrets
    return ids


async def _kill_under_load(bench: Bench, served: Served, ids: list[str]) -> float:
    """Kill and start again while callers are at work; return when it was killed."""
    answers: list[float] = []
    over = asyncio.Event()

    async def call() -> None:
        while not over.is_set():
            handle = await bench.client.start(hello)
            check(await handle.result(), EXPECTED, handle.instance_id)
            answers.append(time.perf_counter())

    async with asyncio.TaskGroup() as group:
        for _ in range(max(1, bench.options.concurrency // LOAD_SHARE)):
            group.create_task(call())
        await asyncio.sleep(LOAD_S)
        killed_s = time.perf_counter()
        await served.kill()
        await served.start()
        bench.figures["kill_to_ready_s"] = round(time.perf_counter() - killed_s, 3)
        await _wake(bench, ids[0], 0)
        bench.figures["kill_to_first_progress_s"] = round(time.perf_counter() - killed_s, 3)
        # Exact reads, each answered by the owner from what it has recovered.
        places = range(bench.options.partitions)
        await asyncio.gather(*(bench.client.get(f"nobody!{place}") for place in places))
        bench.figures["kill_to_all_partitions_s"] = round(time.perf_counter() - killed_s, 3)
        await asyncio.sleep(LOAD_S)
        over.set()
    bench.figures["callers_waited_s_max"] = round(
        max(later - earlier for earlier, later in pairwise(sorted(answers))), 3
    )
    return killed_s


async def _wake(bench: Bench, instance_id: str, number: int) -> None:
    await bench.client.raise_event(instance_id, "go", number)
    result = await bench.client.handle(instance_id, open_instance).result()
    check(result, bench.size("steps") + number, instance_id)
