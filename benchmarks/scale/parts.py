"""What can be varied. Each part returns a row of figures per value."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.scale.turns import Figures, Hub, Load, at_once, hub, in_turns, loading
from benchmarks.scale.verdicts import Row
from benchmarks.takeover.probing import is_even
from shardrt import Client
from shardrt.bench.bench import Bench
from shardrt.bench.errors import check
from shardrt.bench.hosts import Host, Served
from shardrt.bench.loops import RunOne
from shardrt.bench.measuring import collecting_seldom, measure, prepared, progress_bars
from shardrt.bench.metering import CpuMeter, FindRoles, host_processes, this_process
from shardrt.bench.options import Options
from shardrt.bench.postgres_stats import PostgresStats
from shardrt.bench.stores import store
from shardrt.bench.workloads import hello, parked, sequence
from shardrt.bench.workloads.hello import CITIES, EXPECTED
from shardrt.store.factory import make_store

POLL_S = 0.05
OPEN_STEPS = 2
HISTORY_STEPS = 10
HISTORY_CONCURRENCY = 20
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
    """Give a host so many shards, and each shard as much to do: 500 in flight.

    In turns with as many hubs of one shard that know nothing of each other, at the same time: what
    more processes cost on this machine, whatever they have to do with each other.
    """
    async with AsyncExitStack() as stack:
        alone = [
            await stack.enter_async_context(
                hub(size.on_shards(1, shards=1, n=size.n // 2), hello.run)
            )
            for _ in range(max(values))
        ]
        hubs: dict[int, Hub] = {
            value: hub(size.on_shards(value, shards=value), hello.run) for value in values
        }
        apart: dict[int, Hub] = {-value: nullcontext(at_once(alone[:value])) for value in values}
        rows = await in_turns(size.rounds, hubs | apart, of("shards"), "cpu_us_per_hello")
    return [
        row | {"apart_us_per_hello": other["cpu_us_per_hello"], "of_apart": share(row, other)}
        for row, other in zip(rows[: len(values)], rows[len(values) :], strict=True)
    ]


def share(row: Row, of: Row) -> float:
    """Return the cost of a `hello` as a share of that of another."""
    return round((row["cpu_us_per_hello"] or 0) / (of["cpu_us_per_hello"] or 1), 3)


async def partitions(size: Size, values: Sequence[int]) -> list[Row]:
    hubs = {value: hub(size.options(partitions=value), hello.run) for value in values}
    return await in_turns(size.rounds, hubs, of("partitions"), "cpu_us_per_hello")


def of(varied: str) -> Callable[[int, Figures], Row]:
    return lambda value, figures: {varied: value, **costs(figures)}


async def parked_instances(size: Size, values: Sequence[int]) -> list[Row]:
    """Park more and more in one hub; run `hello` beside them, and wake some."""
    rows = []
    there = 0
    async with prepared(size.options(sizes={"idle_s": size.idle_s})) as bench:
        for value in values:
            # What is woken ends: it is parked on top.
            bench.options = replace(bench.options, n=value - there)
            bench.figures.clear()
            await parked.run(bench)
            found = dict(bench.figures)
            there = value
            bench.options = replace(bench.options, n=size.n)
            await bench.load(hello_of(bench.client), activities=len(CITIES))
            memory = found["memory_bytes"]
            rows.append(
                {
                    "parked": value,
                    "starts_per_s": found["starts_per_s"],
                    "shards_mb": memory.get("shard", memory["total"]) >> 20,
                    "client_mb": memory.get("client", 0) >> 20,
                    "all_mb": memory["total"] >> 20,
                    "idle_queries_per_s": found.get("idle_queries_per_s", 0.0),
                    "wake_p50_ms": found["wake_ms"]["p50"],
                    "wake_p99_ms": found["wake_ms"]["p99"],
                    **costs(bench.figures),
                }
            )
    return rows


def hello_of(client: Client) -> RunOne:
    async def run_one(_: int) -> None:
        handle = await client.start(hello.hello)
        check(await handle.result(), EXPECTED, handle.instance_id)

    return run_one


async def hosts(size: Size, values: Sequence[int]) -> list[Row]:
    """Give a hub so many hosts of one shard each, 500 in flight for each, and a client that knows
    all of them."""
    hubs = {value: hub_of_hosts(size, value) for value in values}
    return await in_turns(size.rounds, hubs, costs_on_hosts, "cpu_us_per_hello")


async def forwarded(size: Size, values: Sequence[int]) -> list[Row]:
    """The same with a client at each host that knows no other: most calls cross two gateways."""
    hubs = {value: hub_of_hosts(size, value, is_direct=False) for value in values}
    return await in_turns(size.rounds, hubs, costs_on_hosts, "cpu_us_per_hello")


def costs_on_hosts(count: int, figures: Figures) -> Row:
    cpu = figures["cpu_us_per_instance"]
    on_the_way = {f"{role}_us_per_hello": cpu.get(role) for role in ("client", "gateway")}
    return {"hosts": count, **costs(figures), **on_the_way}


@asynccontextmanager
async def hub_of_hosts(size: Size, count: int, *, is_direct: bool = True) -> AsyncIterator[Load]:
    options = size.on_shards(count, shards=1)
    async with AsyncExitStack() as stack:
        url = stack.enter_context(store(options.store))
        served = []
        for number in range(count):
            host = Served(options, url, "--host-id", f"host-{number}")
            served.append(await stack.enter_async_context(host))
        urls = [host.url for host in served]
        clients = [
            await stack.enter_async_context(await Client.connect(known))
            for known in ([urls] if is_direct else urls)
        ]
        await until_shared(url, [f"host-{number}" for number in range(count)])
        roles = [this_process("client"), *(roles_of(host) for host in served)]
        postgres = None
        if url.startswith("postgres"):
            postgres = stack.enter_context(PostgresStats(url))
            roles.append(postgres.roles)
        progress = stack.enter_context(progress_bars())
        stack.enter_context(collecting_seldom())
        bench = Bench(Host(clients[0], roles), options, CpuMeter(roles), postgres, url, progress)
        runs = [hello_of(client) for client in clients]

        async def run_one(number: int) -> None:
            await runs[number % len(runs)](number)

        yield loading(bench, lambda bench: bench.load(run_one, activities=len(CITIES)))


def roles_of(host: Served) -> FindRoles:
    return host_processes(lambda: host.pid)


async def until_shared(url: str, hosts: Sequence[str]) -> None:
    """Return once every host owns its share of the partitions."""
    watched = make_store(url, unsafe=True)
    await watched.open()
    try:
        while not is_even(await watched.view(), hosts):  # noqa: ASYNC110 - of other processes
            await asyncio.sleep(POLL_S)
    finally:
        await watched.close()


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
        "shard processes", shards, (1, 2, 4, 8), (1, 2), ("cpu_us_per_hello", "of_apart")
    ),
    "partitions": Part("partitions", partitions, (8, 32, 128, 256), (2, 4), ("cpu_us_per_hello",)),
    "parked": Part(
        "instances that wait meanwhile",
        parked_instances,
        (10_000, 100_000, 1_000_000),
        (20, 40),
        ("cpu_us_per_hello",),
    ),
    "hosts": Part("hosts of one shard", hosts, (1, 2, 3, 4), (1, 2), ("cpu_us_per_hello",)),
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
