"""The app that the benchmarks serve: the samples, and orchestrations that wait for events."""

from shardrt import App, OrchestrationContext
from shardrt.samples import hello

app = App()
app.include(hello.app)


@app.orchestrator
async def echo_event(ctx: OrchestrationContext) -> object:
    """Wait for the event "go" and return its data."""
    return await ctx.wait_for_event("go")
