"""Random programs: what the orchestrations of a simulation do, and what must come of it.

A program is a list of steps as JSON. One orchestrator interprets all of them, so that a seed
can draw programs of any shape; `expected` computes the result without any of it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from shardrt import ActivityContext, App, Limit, OrchestrationContext, RetryPolicy
from shardrt.errors import ActivityFailed

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

TaskKey = tuple[str, str, int]


@dataclass
class World:
    """What activities touch besides their input; one per run."""

    on_start: Callable[[TaskKey, int], None] = lambda *_: None
    returned: dict[TaskKey, set[bytes]] = field(default_factory=dict)
    fixed: set[str] = field(default_factory=set)
    """What does not fail any more."""
    runs: int = 0


class _Present:
    """Holds the world of the run under way."""

    world = World()


present = _Present()
app = App()


def _begin(ctx: ActivityContext, *, speculative: bool = False) -> None:
    present.world.runs += 1
    if not speculative:
        present.world.on_start((ctx.instance_id, ctx.execution_id, ctx.task_id), ctx.attempt)


def _end(ctx: ActivityContext, value: Any) -> Any:
    key = (ctx.instance_id, ctx.execution_id, ctx.task_id)
    present.world.returned.setdefault(key, set()).add(msgspec.json.encode(value))
    return value


@app.activity
async def act(ctx: ActivityContext, number: int) -> int:
    """Do something quick."""
    _begin(ctx)
    return int(_end(ctx, 3 * number + 1))


@app.activity
def blocking(ctx: ActivityContext, number: int) -> int:
    """Do something quick in a thread."""
    _begin(ctx)
    return int(_end(ctx, -number))


@app.activity
async def slow(ctx: ActivityContext, args: list[int]) -> int:
    """Take a while: ``[ms, number]``."""
    _begin(ctx)
    await asyncio.sleep(args[0] / 1000)
    return int(_end(ctx, args[1] + 7))


@app.activity(
    limit=Limit("rare", concurrency=1, rate=10, per=1.0),
    retry=RetryPolicy(max_attempts=2, first_interval=0.2),
)
async def rare(ctx: ActivityContext, number: int) -> int:
    """Take a while, with no other one at the same time; succeed the second time."""
    _begin(ctx)
    await asyncio.sleep(0.2)
    if ctx.attempt == 1:
        raise OSError("the first attempt")
    return int(_end(ctx, number + 9))


@app.activity(speculative=True)
async def quick(ctx: ActivityContext, number: int) -> int:
    """Compute; may start before it is durable."""
    _begin(ctx, speculative=True)
    return int(_end(ctx, 2 * number))


@app.activity(retry=RetryPolicy(max_attempts=5, first_interval=0.3, jitter=0.5))
async def flaky(ctx: ActivityContext, failures: int) -> int:
    """Fail so many times."""
    _begin(ctx)
    if ctx.attempt <= failures:
        raise OSError(f"attempt {ctx.attempt}")
    return int(_end(ctx, ctx.attempt))


@app.activity
async def hopeless(ctx: ActivityContext, key: str) -> str:
    """Fail, until the world is set right."""
    _begin(ctx)
    if key not in present.world.fixed:
        raise ValueError(key)
    return str(_end(ctx, f"{key} is fixed"))


@app.entity
@dataclass
class Register:
    """Remembers who wrote what, in order."""

    tokens: list[str] = field(default_factory=list)
    value: int = 0

    def write(self, token: str) -> str:
        """Remember a token."""
        self.tokens.append(token)
        return token

    def get(self) -> int:
        """Return the number."""
        return self.value

    def put(self, value: int) -> None:
        """Set the number."""
        self.value = value


def register(key: str) -> str:
    """Return the id of an entity."""
    return f"@register@{key}"


@app.orchestrator
async def program(ctx: OrchestrationContext, given: dict[str, Any]) -> list[Any]:
    """Carry out ``given["steps"]``, and return ``given["got"]`` with their results."""
    got: list[Any] = list(given.get("got", []))
    steps = given["steps"]
    for index, step in enumerate(steps):
        if step[0] == "anew":
            ctx.continue_as_new({"steps": steps[index + 1 :], "got": [*got, "anew"]})
            return []
        got.append(await _perform(ctx, step))
    return got


async def _perform(ctx: OrchestrationContext, step: list[Any]) -> Any:
    name, *args = step
    return await _STEPS[name](ctx, *args)


async def _call(ctx: OrchestrationContext, name: str, value: Any) -> Any:
    return await ctx.call_activity(name, value)


async def _hopeless(ctx: OrchestrationContext, key: str) -> Any:
    try:
        return await ctx.call_activity(hopeless, key)
    except ActivityFailed as error:
        return error.error_type


async def _fix(ctx: OrchestrationContext, key: str) -> Any:
    return await ctx.call_activity(hopeless, key)


async def _timer(ctx: OrchestrationContext, ms: int) -> Any:
    await ctx.create_timer(timedelta(milliseconds=ms))
    return "timer"


async def _patience(ctx: OrchestrationContext, ms: int) -> Any:
    try:
        async with asyncio.timeout(ms / 1000):
            await ctx.wait_for_event("never")
    except TimeoutError:
        return "timeout"


async def _all(ctx: OrchestrationContext, *steps: list[Any]) -> Any:
    return list(await asyncio.gather(*(_perform(ctx, each) for each in steps)))


async def _child(ctx: OrchestrationContext, *steps: list[Any]) -> Any:
    return await ctx.call_sub_orchestrator(program, {"steps": list(steps)})


async def _status(ctx: OrchestrationContext, value: Any) -> Any:
    ctx.set_custom_status(value)
    return value


async def _abandon(ctx: OrchestrationContext, ms: int, number: int) -> Any:
    """Start something and do not wait for it."""
    unheard = ctx.call_activity(slow, [ms, number])
    unheard.add_done_callback(lambda done: done.cancelled() or done.exception())
    return "abandoned"


async def _signal(ctx: OrchestrationContext, key: str, token: str) -> Any:
    ctx.signal_entity(register(key), "write", token)
    return token


async def _ask(ctx: OrchestrationContext, key: str, token: str) -> Any:
    return await ctx.call_entity(register(key), "write", token)


async def _section(ctx: OrchestrationContext, *keys: str) -> Any:
    """Add one to several numbers, which takes a while."""
    ids = [register(key) for key in keys]
    async with ctx.lock(*ids):
        values = [await ctx.call_entity(each, "get") for each in ids]
        await ctx.call_activity(act, values[0])
        for entity, value in zip(ids, values, strict=True):
            await ctx.call_entity(entity, "put", value + 1)
    return "section"


_STEPS: dict[str, Callable[..., Any]] = {
    "act": lambda ctx, number: _call(ctx, "act", number),
    "blocking": lambda ctx, number: _call(ctx, "blocking", number),
    "slow": lambda ctx, ms, number: _call(ctx, "slow", [ms, number]),
    "quick": lambda ctx, number: _call(ctx, "quick", number),
    "rare": lambda ctx, number: _call(ctx, "rare", number),
    "flaky": lambda ctx, failures: _call(ctx, "flaky", failures),
    "hopeless": _hopeless,
    "fix": _fix,
    "timer": _timer,
    "patience": _patience,
    "all": _all,
    "child": _child,
    "status": _status,
    "abandon": _abandon,
    "signal": _signal,
    "ask": _ask,
    "section": _section,
}


def expected(steps: list[list[Any]]) -> list[Any]:
    """Return what a program of these steps gives."""
    return [_result(step) for step in steps]


def _result(step: list[Any]) -> Any:
    name, *args = step
    match name:
        case "all" | "child":
            return expected(args)
        case "status":
            return args[0]
        case "signal" | "ask":
            return args[1]
        case _:
            return _RESULTS[name](*args)


_RESULTS: dict[str, Callable[..., Any]] = {
    "act": lambda number: 3 * number + 1,
    "blocking": lambda number: -number,
    "slow": lambda ms, number: number + 7,  # noqa: ARG005
    "quick": lambda number: 2 * number,
    "rare": lambda number: number + 9,
    "flaky": lambda failures: failures + 1,
    "hopeless": lambda key: "ValueError",  # noqa: ARG005
    "fix": lambda key: f"{key} is fixed",
    "timer": lambda ms: "timer",  # noqa: ARG005
    "patience": lambda ms: "timeout",  # noqa: ARG005
    "abandon": lambda ms, number: "abandoned",  # noqa: ARG005
    "section": lambda *keys: "section",  # noqa: ARG005
    "anew": lambda: "anew",
}


def draw_program(random: Random, name: str, depth: int = 0) -> list[list[Any]]:
    """Draw the steps of a program; `name` makes what it writes its own."""
    steps = [
        draw_step(random, f"{name}.{index}", depth)
        for index in range(random.randint(1, 5 if depth == 0 else 2))
    ]
    if depth == 0 and random.random() < 0.3:
        steps.insert(random.randint(0, len(steps)), ["anew"])
    return steps


def draw_step(random: Random, name: str, depth: int) -> list[Any]:
    """Draw one step."""
    number = random.randrange(1000)
    ms = random.choice((50, 300, 1000, 3000))
    options: list[list[Any]] = [
        ["act", number],
        ["act", number],
        ["blocking", number],
        ["slow", ms, number],
        ["quick", number],
        ["rare", number],
        ["rare", number],
        ["flaky", random.randint(1, 3)],
        ["hopeless", name],
        ["timer", ms],
        ["patience", ms],
        ["status", number],
        ["abandon", ms, number],
        ["signal", f"k{random.randrange(3)}", name],
        ["ask", f"k{random.randrange(3)}", name],
    ]
    if depth < 2 and random.random() < 0.3:
        kind = random.choice(("all", "child"))
        parts = draw_program(random, name, depth + 1)
        return [kind, *parts]
    return random.choice(options)


@app.orchestrator
async def mailbox(ctx: OrchestrationContext, given: dict[str, Any]) -> list[Any]:
    """Collect events, a few per execution; those that came too early go along to the next."""
    got = list(given["got"])
    for _ in range(given["per"]):
        got.append(await ctx.wait_for_event("letter"))
        if len(got) == given["want"]:
            return got
    if given["acts"]:
        await ctx.call_activity(act, len(got))
    ctx.continue_as_new({**given, "got": got})
    return []


@app.orchestrator
async def postman(ctx: OrchestrationContext, given: dict[str, Any]) -> None:
    """Send numbers, each to several at once."""
    for number in range(given["rounds"]):
        for instance_id in given["to"]:
            ctx.send_event(instance_id, "letter", [given["sender"], number])
        await ctx.create_timer(timedelta(milliseconds=given["ms"]))


@app.orchestrator
async def ping(ctx: OrchestrationContext, given: dict[str, Any]) -> list[Any]:
    """Send numbers to the partner and collect what comes back."""
    got = []
    for number in range(given["rounds"]):
        ctx.send_event(given["partner"], "ball", number)
        got.append(await ctx.wait_for_event("ball"))
    return got


@app.orchestrator
async def pong(ctx: OrchestrationContext, given: dict[str, Any]) -> None:
    """Return each number, ten more."""
    for _ in range(given["rounds"]):
        number = await ctx.wait_for_event("ball")
        ctx.send_event(given["partner"], "ball", number + 10)


@app.orchestrator
async def saga(ctx: OrchestrationContext, given: dict[str, Any]) -> list[int]:
    """Do one thing after the other, and wait for ever; when cancelled, undo all that is done."""
    done: list[int] = []
    try:
        for number in given["numbers"]:
            done += [await ctx.call_activity(slow, [given["ms"], number])]
        if given["child"]:
            child = {**given, "child": ""}
            await ctx.call_sub_orchestrator(saga, child, instance_id=given["child"])
        await ctx.wait_for_event("never")
    except asyncio.CancelledError:
        undone = [await ctx.call_activity(act, number) for number in reversed(done)]
        ctx.set_custom_status({"done": done, "undone": undone})
        raise
    return done


@app.orchestrator
async def family(ctx: OrchestrationContext, generations: int) -> None:
    """Wait for ever, with children that do, too."""
    if generations:
        name = f"{ctx.instance_id}.{generations}"
        await ctx.call_sub_orchestrator(family, generations - 1, instance_id=name)
    await ctx.wait_for_event("never")
