"""A data pipeline: check, transform in parallel, load; bad rows are set aside.

    python -m shardrt.samples pipeline '["10", "x", "32"]'

A stage begins when the one before has ended. What a stage returns is kept in the history, so
keep it small: real pipelines pass on where the data is.
"""

import asyncio
from dataclasses import dataclass

from shardrt import App, OrchestrationContext, RetryPolicy

app = App()

CHUNK = 2
BAD_SHARE_MAX = 0.5
"""With more bad rows than that, nothing is loaded."""


@dataclass(frozen=True)
class Checked:
    """Rows by whether they are numbers."""

    good: list[str]
    bad: list[str]


@dataclass(frozen=True)
class Loaded:
    """What came out."""

    rows: int
    total: float
    bad: list[str]


@app.activity
async def check_rows(rows: list[str]) -> Checked:
    good = [row for row in rows if row.strip().lstrip("-").isdecimal()]
    return Checked(good, [row for row in rows if row not in good])


@app.activity
def to_numbers(rows: list[str]) -> list[float]:
    """Transform a chunk; a plain function, so it has a thread for itself."""
    return [float(row) for row in rows]


@app.activity(retry=RetryPolicy(max_attempts=5))
async def load_rows(numbers: list[float]) -> float:
    return sum(numbers)


@app.orchestrator
async def pipeline(ctx: OrchestrationContext, rows: list[str] | None = None) -> Loaded:
    rows = ["1", "2", "three", "4"] if rows is None else rows
    ctx.set_custom_status("checking")
    checked = await ctx.call_activity(check_rows, rows)
    if len(checked.bad) > BAD_SHARE_MAX * len(rows):
        raise ValueError(f"{len(checked.bad)} of {len(rows)} rows are bad: {checked.bad[:3]}")
    ctx.set_custom_status("transforming")
    good = checked.good
    chunks = [good[start : start + CHUNK] for start in range(0, len(good), CHUNK)]
    transformed = await asyncio.gather(*(ctx.call_activity(to_numbers, each) for each in chunks))
    ctx.set_custom_status("loading")
    numbers = [number for chunk in transformed for number in chunk]
    return Loaded(len(numbers), await ctx.call_activity(load_rows, numbers), checked.bad)
