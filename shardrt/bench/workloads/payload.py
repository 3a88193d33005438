"""Large values: into an orchestration, through an activity, and out again.

Digits that are drawn by chance, so that nothing can be compressed away. In one run: 1 kB,
100 kB and 1 MB, with a tenth and a hundredth of the instances.
"""

from __future__ import annotations

import random
from functools import partial
from typing import TYPE_CHECKING

from shardrt import App, OrchestrationContext
from shardrt.bench.errors import check

if TYPE_CHECKING:
    from shardrt.bench.bench import Bench

app = App()

SIZES = {"1kB": 1_000, "100kB": 100_000, "1MB": 1_000_000}
SHARE = {"1kB": 1, "100kB": 10, "1MB": 100}
SEED = 1


@app.activity(name="bench.echo")
async def echo(text: str) -> str:
    return text


@app.orchestrator(name="bench.payload")
async def payload(ctx: OrchestrationContext, text: str) -> str:
    return await ctx.call_activity(echo, text)


async def run(bench: Bench) -> None:
    """Run it with each size."""
    chance = random.Random(SEED)  # noqa: S311 - the same bytes in every run
    texts = {name: chance.randbytes(size // 2).hex() for name, size in SIZES.items()}
    instances = {name: max(1, bench.options.n // SHARE[name]) for name in SIZES}

    async def run_one_of(name: str, number: int) -> None:
        handle = await bench.client.start(payload, f"{number:08}{texts[name]}")
        came = await handle.result()
        # Not shown when it is wrong: it is long.
        check(came == f"{number:08}{texts[name]}", True, f"whether {name} came back whole")

    await bench.warm_up(partial(run_one_of, "1kB"))
    async with bench.accounting(sum(instances.values())):
        for name, n in instances.items():
            timing = await bench.loop(name, partial(run_one_of, name), n)
            megabytes = n * SIZES[name] / 1e6
            bench.note(timing, part=name)
            bench.figures[name]["megabytes_per_s"] = round(megabytes / timing.seconds, 2)
