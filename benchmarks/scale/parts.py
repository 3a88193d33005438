"""What can be varied. Each part returns a row of figures per value."""

from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.scale.hubs import hub_of_hosts, hubs_apart
from benchmarks.scale.turns import Figures, Hub, Load, RowOf, beside, hub, in_turns, loading
from benchmarks.scale.verdicts import Row
from shardrt.bench.measuring import measure, prepared
from shardrt.bench.options import Options
from shardrt.bench.workloads import hello, parked, sequence
from shardrt.bench.workloads.hello import CITIES

OPEN_STEPS = 2
HISTORY_STEPS = 10
HISTORY_CONCURRENCY = 20
COMPARED = ("cpu_us_per_hello", "of_apart")
"""Have a range, where there is something to compare with."""
COSTS_APART = ("cpu_us_per_hello", "apart_us_per_hello")
OVERLOAD_FIGURES = (
    "offered_per_s",
    "goodput_per_s",
    "goodput_share",
    "carried_per_s",
    "accepted",
    "refused",
    "all_done_after_s",
)


@dataclass(frozen=True)
class Size:
    """How large a run is."""

    n: int
    """Instances of `hello` for each figure."""
    concurrency: int
    per_shard: int = 500
    """In flight for each shard, where their number varies. With a fixed number more shards would
    have smaller batches each, and that is what would be measured."""
    store: str | None = None
    """None: a throw-away Postgres with fsync on for each figure."""
    idle_s: float = 5.0
    rounds: int = 3
    """How often each is measured, in turns, where hubs can stand side by side."""

    def in_store(self, url: str | None) -> "Size":
        return replace(self, store=url)

    def options(self, **changes: Any) -> Options:
        given: Figures = {"n": self.n, "concurrency": self.concurrency, "store": self.store}
        return Options(**({"warmup": min(self.n // 10, 2000)} | given | changes))

    def on_shards(self, count: int, **changes: Any) -> Options:
        return self.options(concurrency=self.per_shard * count, **changes)


USUAL = Size(n=20_000, concurrency=1_000)
SMALL = Size(n=20, concurrency=5, per_shard=5, idle_s=0.05, rounds=1)


@dataclass(frozen=True)
class Part:
    """One thing that is varied."""

    about: str
    run: Callable[[Size, Sequence[int]], Coroutine[Any, Any, list[Row]]]
    values: tuple[int, ...]
    small: tuple[int, ...]
    flat: tuple[str, ...] = ()
    """Costs that should not depend on it."""
    shares: tuple[str, ...] = ()
    """Costs as shares of what the same costs elsewhere, which should not be more than that."""


def costs(figures: Figures) -> Row:
    """Return what one `hello` cost, and how many there were."""
    cpu = figures["cpu_us_per_instance"]
    row = {
        "hello_per_s": figures["instances_per_s"],
        "cpu_us_per_hello": cpu["total"],
        "cpu_us_per_step": round(cpu["total"] / len(CITIES), 1),
        "shard_us_per_hello": cpu.get("shard", cpu["total"]),
    }
    written = figures.get("store_per_instance", {})
    return row | {f"{name}_per_hello": value for name, value in written.items() if name != "rows"}


async def shards(size: Size, values: Sequence[int]) -> list[Row]:
    """Give a host so many shards, and each shard as much to do: 500 in flight."""
    hubs: dict[int, Hub] = {}
    for value in values:
        options = size.on_shards(value, shards=value)
        hubs[value] = beside(hub(options, hello.run), hubs_apart(options, value))
    return await in_turns(size.rounds, hubs, of_apart(of("shards")), *COMPARED)


def of_apart(row: RowOf) -> RowOf:
    """Return a row that also tells what the same costs in hubs that are apart.

    That is what more processes cost on this machine, whatever they have to do with each other.
    """

    def compared(value: int, figures: Figures) -> Row:
        one, apart = row(value, figures), costs(figures["apart"])
        share = (one["cpu_us_per_hello"] or 0) / (apart["cpu_us_per_hello"] or 1)
        figures_apart = {
            "apart_us_per_hello": apart["cpu_us_per_hello"],
            "apart_shard_us_per_hello": apart["shard_us_per_hello"],
        }
        return {**one, **figures_apart, "of_apart": round(share, 3)}

    return compared


async def partitions(size: Size, values: Sequence[int]) -> list[Row]:
    hubs = {value: hub(size.options(partitions=value), hello.run) for value in values}
    return await in_turns(size.rounds, hubs, of("partitions"), "cpu_us_per_hello")


def of(varied: str) -> RowOf:
    return lambda value, figures: {varied: value, **costs(figures)}


async def parked_instances(size: Size, values: Sequence[int]) -> list[Row]:
    """Run `hello` in hubs in which so many are parked each."""
    hubs = {value: hub_with_parked(size, value) for value in values}
    return await in_turns(size.rounds, hubs, costs_beside_parked, "cpu_us_per_hello")


@asynccontextmanager
async def hub_with_parked(size: Size, count: int) -> AsyncIterator[Load]:
    """Park them, look at the idle hub, wake some; yield what runs `hello` beside the others."""
    async with prepared(size.options(n=count, sizes={"idle_s": size.idle_s})) as bench:
        await parked.run(bench)
        found = dict(bench.figures)
        # The client is that of all hubs, and so is a given Postgres.
        shared = ("client", "total", *(("postgres",) if size.store else ()))
        memory = found["memory_bytes"].items()
        found["hub_bytes"] = sum(used for role, used in memory if not role.startswith(shared))
        bench.options = replace(bench.options, n=size.n)
        run = loading(bench, hello.run)

        async def load() -> Figures:
            return await run() | {"parked": found}

        yield load


def costs_beside_parked(count: int, figures: Figures) -> Row:
    found = figures["parked"]
    return {
        "parked": count,
        "starts_per_s": found["starts_per_s"],
        "shards_mb": found["memory_bytes"]["shard"] >> 20,
        "hub_mb": found["hub_bytes"] >> 20,
        "idle_queries_per_s": found.get("idle_queries_per_s", 0.0),
        "wake_p50_ms": found["wake_ms"]["p50"],
        "wake_p99_ms": found["wake_ms"]["p99"],
        **costs(figures),
    }


async def hosts(size: Size, values: Sequence[int]) -> list[Row]:
    """Give a hub so many hosts of one shard each, 500 in flight for each, and a client that knows
    all of them."""
    hubs: dict[int, Hub] = {}
    for value in values:
        options = size.on_shards(value, shards=1)
        hubs[value] = beside(hub_of_hosts(options, value), hubs_apart(options, value))
    return await in_turns(size.rounds, hubs, of_apart(costs_on_hosts), *COMPARED)


async def forwarded(size: Size, values: Sequence[int]) -> list[Row]:
    """The same with a client at each host that knows no other: most calls cross two gateways."""
    hubs = {
        value: hub_of_hosts(size.on_shards(value, shards=1), value, is_direct=False)
        for value in values
    }
    return await in_turns(size.rounds, hubs, costs_on_hosts, "cpu_us_per_hello")


def costs_on_hosts(count: int, figures: Figures) -> Row:
    cpu = figures["cpu_us_per_instance"]
    on_the_way = {f"{role}_us_per_hello": cpu.get(role) for role in ("client", "gateway")}
    return {"hosts": count, **costs(figures), **on_the_way}


async def history(size: Size, values: Sequence[int]) -> list[Row]:
    """Run instances of so many steps, always as many at a time, and about as many steps in all."""
    concurrency = min(HISTORY_CONCURRENCY, size.concurrency)

    def of_length(steps: int) -> Hub:
        n = max(concurrency, size.n * HISTORY_STEPS // steps)
        options = size.options(n=n, concurrency=concurrency, warmup=n // 10, sizes={"steps": steps})
        return hub(options, sequence.run)

    hubs = {steps: of_length(steps) for steps in values}
    rows = await in_turns(size.rounds, hubs, costs_of_steps, "cpu_us_per_step")
    return [
        row | {"cpu_us_per_further_step": None if shorter is None else further(shorter, row)}
        for shorter, row in zip([None, *rows], rows, strict=False)
    ]


def costs_of_steps(steps: int, figures: Figures) -> Row:
    cpu = figures["cpu_us_per_instance"]["total"]
    return {
        "steps": steps,
        "steps_per_s": figures["activities_per_s"],
        "cpu_us_per_instance": cpu,
        "cpu_us_per_step": round(cpu / steps, 1),
    }


def further(shorter: Row, longer: Row) -> float:
    """Return what a step costs beyond those of a shorter instance: without start and result."""
    more = {name: (longer[name] or 0) - (shorter[name] or 0) for name in longer}
    return round(more["cpu_us_per_instance"] / more["steps"], 1)


async def recovery(size: Size, values: Sequence[int]) -> list[Row]:
    """Kill a host with so many instances open."""
    rows = []
    for value in values:
        options = size.options(n=value, warmup=0, sizes={"steps": OPEN_STEPS}, mode="serve")
        found = (await measure("recovery", options))["figures"]
        wanted = ("ready_s", "first_progress_s", "all_partitions_s", "all_done_s")
        rows.append(
            {
                "open": value,
                **{f"kill_to_{name}": found[f"kill_to_{name}"] for name in wanted},
                "callers_waited_s_max": found["callers_waited_s_max"],
                "woken_per_s": found["instances_per_s"],
                "events_replayed_per_s": found["history_events_replayed_per_s"],
                "cpu_us_per_woken": found["cpu_us_per_instance"]["total"],
            }
        )
    return rows


async def overload(size: Size, values: Sequence[int]) -> list[Row]:
    """Offer so many times what the hub carries."""
    rows = []
    for value in values:
        sizes = {"factor": value, "offer_s": 2 * size.idle_s}
        found = (await measure("overload", size.options(sizes=sizes)))["figures"]
        memory = found["memory_mb"]["shard"]
        rows.append(
            {
                "factor": value,
                "maximum_per_s": found["maximum"]["instances_per_s"],
                **{name: found[name] for name in OVERLOAD_FIGURES},
                "accepted_p50_ms": found["latency_ms"]["p50"],
                "accepted_p99_ms": found["latency_ms"]["p99"],
                "refused_p99_ms": found["refusal_ms"]["p99"],
                **{f"shards_mb_{when}": memory[when] for when in memory},
            }
        )
    return rows


PARTS: dict[str, Part] = {
    "shards": Part(
        "shard processes", shards, (1, 2, 4, 8), (1, 2), COSTS_APART, shares=("of_apart",)
    ),
    "partitions": Part("partitions", partitions, (8, 32, 128, 256), (2, 4), ("cpu_us_per_hello",)),
    "parked": Part(
        "instances that wait meanwhile",
        parked_instances,
        (10_000, 100_000, 1_000_000),
        (20, 40),
        ("cpu_us_per_hello",),
    ),
    "hosts": Part(
        "hosts of one shard", hosts, (1, 2, 3, 4), (1, 2), COSTS_APART, shares=("of_apart",)
    ),
    "forwarded": Part(
        "hosts of one shard, each client knows one of them",
        forwarded,
        (1, 2, 3, 4),
        (1, 2),
        ("cpu_us_per_hello",),
    ),
    "history": Part(
        "steps of an instance",
        history,
        (10, 100, 1_000, 10_000),
        (2, 4),
        ("cpu_us_per_step", "cpu_us_per_further_step"),
    ),
    "recovery": Part("instances open when a host is killed", recovery, (1_000, 100_000), (5,)),
    "overload": Part("starts offered, in maxima", overload, (2, 5), (2,)),
}
