"""Many activities at once, and the sum of what they return.

python -m shardrt.samples fanout 1000
"""

import asyncio

from shardrt import App, OrchestrationContext

app = App()

WIDTH_DEFAULT = 100
WIDTH_MAX = 100_000


@app.activity
async def square(number: int) -> int:
    return number * number


@app.orchestrator
async def fanout(ctx: OrchestrationContext, width: int | None = None) -> int:
    """Return the sum of the first `width` squares, each computed by an activity of its own."""
    width = WIDTH_DEFAULT if width is None else width
    if not 0 <= width <= WIDTH_MAX:
        raise ValueError(f"width must be between 0 and {WIDTH_MAX}, not {width}")
    return sum(await asyncio.gather(*(ctx.call_activity(square, n) for n in range(width))))
