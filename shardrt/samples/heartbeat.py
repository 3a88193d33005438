"""A heart that beats for ever: the same call with the same input, and it runs every time.

    python -m shardrt.samples heartbeat '{"beats": 5, "interval_s": 0.5}'

A call is known by its place in the execution and not by its input, so no result of an earlier
one is mistaken for it. After some beats the history is left behind by `continue_as_new`.
"""

import asyncio
from dataclasses import dataclass, replace

from shardrt import App, OrchestrationContext

app = App()

BEATS_PER_EXECUTION = 10


@dataclass(frozen=True)
class Heart:
    """How to beat, and the beats so far."""

    interval_s: float = 60.0
    beats: int | None = None
    """How many there shall be; None: until it is terminated."""
    done: int = 0


@app.activity
async def beat(name: str) -> None:
    """Tell somebody that all is well."""


@app.orchestrator
async def heartbeat(ctx: OrchestrationContext, heart: Heart | None = None) -> int:
    """Return the number of beats."""
    heart = heart or Heart()
    done = heart.done
    for _ in range(BEATS_PER_EXECUTION):
        await ctx.call_activity(beat, "the shop")
        done += 1
        ctx.set_custom_status(done)
        if done == heart.beats:
            return done
        await asyncio.sleep(heart.interval_s)
    ctx.continue_as_new(replace(heart, done=done))
    return done
