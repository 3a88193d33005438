"""Five activities in a row, each started when the one before is durable.

python -m shardrt.samples hello
"""

from shardrt import App, OrchestrationContext

app = App()

CITIES = ("Tokyo", "Seattle", "London", "Amsterdam", "Mumbai")


@app.activity(name="SayHello")
async def say_hello(city: str) -> str:
    return f"Hello {city}!"


@app.orchestrator
async def hello(ctx: OrchestrationContext) -> list[str]:
    return [await ctx.call_activity(say_hello, city) for city in CITIES]
