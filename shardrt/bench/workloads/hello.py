"""Five activities in a row, each of which does nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shardrt import App, OrchestrationContext
from shardrt.bench.errors import check

if TYPE_CHECKING:
    from shardrt.bench.bench import Bench

app = App()

CITIES = ("Tokyo", "Seattle", "London", "Amsterdam", "Mumbai")
EXPECTED = [f"Hello {city}!" for city in CITIES]


@app.activity(name="bench.say_hello")
async def say_hello(city: str) -> str:
    return f"Hello {city}!"


@app.activity(name="bench.say_hello_speculatively", speculative=True)
async def say_hello_speculatively(city: str) -> str:
    return f"Hello {city}!"


@app.orchestrator(name="bench.hello")
async def hello(ctx: OrchestrationContext) -> list[str]:
    return [await ctx.call_activity(say_hello, city) for city in CITIES]


@app.orchestrator(name="bench.hello_speculative")
async def hello_speculative(ctx: OrchestrationContext) -> list[str]:
    """Do the same with activities that start before what asks for them is durable."""
    return [await ctx.call_activity(say_hello_speculatively, city) for city in CITIES]


async def run(bench: Bench) -> None:
    """Run it again and again."""
    orchestrator = hello_speculative if bench.options.sizes.get("speculative") else hello

    async def run_one(_: int) -> None:
        check(await bench.client.execute(orchestrator), EXPECTED, "a hello")

    await bench.load(run_one, activities=len(CITIES))
