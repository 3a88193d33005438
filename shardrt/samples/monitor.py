"""An orchestration that never ends: check, sleep, start afresh with what is worth keeping.

    python -m shardrt.samples monitor '{"interval_s": 1, "checks": 5}'

`continue_as_new` gives each check an empty history, so that years of checks cost no more
memory or disk than one. Without `checks` it goes on until it is terminated.
"""

import asyncio
import os
from dataclasses import dataclass, replace

from shardrt import App, OrchestrationContext

app = App()


@dataclass(frozen=True)
class Watch:
    """What to watch for, and what was seen so far."""

    load_max: float = 4.0
    """An alert is counted when the load average of the last minute is above this."""
    interval_s: float = 60.0
    checks: int | None = None
    """How many checks are left; None is for ever."""
    done: int = 0
    alerts: int = 0
    highest: float = 0.0


@app.activity
async def load_average() -> float:
    """Return the load average of the last minute on the machine that runs this."""
    return os.getloadavg()[0]


@app.orchestrator
async def monitor(ctx: OrchestrationContext, watch: Watch | None = None) -> Watch:
    """Check once; then return if it was the last check, or sleep and continue as new."""
    watch = watch or Watch()
    load = await ctx.call_activity(load_average)
    seen = replace(
        watch,
        checks=None if watch.checks is None else watch.checks - 1,
        done=watch.done + 1,
        alerts=watch.alerts + (load > watch.load_max),
        highest=max(watch.highest, load),
    )
    ctx.set_custom_status({"load": load, "alerts": seen.alerts, "checks": seen.done})
    if seen.checks is None or seen.checks > 0:
        await asyncio.sleep(watch.interval_s)
        ctx.continue_as_new(seen)
    return seen
