"""Hubs of many processes: one of several hosts, and several that know nothing of each other."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

from benchmarks.scale.turns import Load, loading
from benchmarks.takeover.probing import is_even
from shardrt import Client
from shardrt.bench.bench import Bench
from shardrt.bench.errors import check
from shardrt.bench.hosts import Host, Served
from shardrt.bench.loops import RunOne
from shardrt.bench.measuring import collecting_seldom, prepared, progress_bars
from shardrt.bench.metering import CpuMeter, FindRoles, host_processes, this_process
from shardrt.bench.options import Options
from shardrt.bench.postgres_stats import PostgresStats
from shardrt.bench.stores import store
from shardrt.bench.workloads import hello
from shardrt.bench.workloads.hello import CITIES, EXPECTED
from shardrt.store.factory import make_store

POLL_S = 0.05


def hello_of(client: Client) -> RunOne:
    async def run_one(_: int) -> None:
        check(await client.execute(hello.hello), EXPECTED, "a hello")

    return run_one


def load_of(bench: Bench, run_one: RunOne) -> Load:
    return loading(bench, lambda bench: bench.load(run_one, activities=len(CITIES)))


# Hubs that know nothing of each other


@asynccontextmanager
async def hubs_apart(options: Options, count: int) -> AsyncIterator[Load]:
    """Yield what loads so many hubs of one host with one shard at the same time.

    All of them together have as much as the options give to one hub: partitions, instances in
    flight, instances in all. They have one load, which ends once for all, and one meter at the
    processes of all. Each has a database of its own.
    """
    async with AsyncExitStack() as stack:
        benches = [
            await stack.enter_async_context(
                prepared(replace(options, shards=1, partitions=max(1, partitions)))
            )
            for partitions in split(options.partitions, count)
        ]
        roles = [find for bench in benches for find in processes_of(bench)]
        first = benches[0]
        # What is written is not told: each database would have to be asked.
        bench = Bench(first.host, options, CpuMeter(roles), None, "", first.progress)
        runs = [hello_of(each.client) for each in benches]
        yield load_of(bench, seated(runs, options.concurrency))


def processes_of(bench: Bench) -> list[FindRoles]:
    return [*bench.host.find_roles, *([bench.postgres.roles] if bench.postgres else [])]


def split(total: int, count: int) -> list[int]:
    """Return so many parts, which differ by one at most."""
    return [total // count + (number < total % count) for number in range(count)]


def seated(runs: Sequence[RunOne], concurrency: int) -> RunOne:
    """Return what runs each instance in one of several hubs, with as many in flight in each.

    A hub gets the next instance when one of its own has ended, as from callers of its own.
    """
    seats = deque(runs[number % len(runs)] for number in range(concurrency))

    async def run_one(number: int) -> None:
        run = seats.popleft()
        try:
            await run(number)
        finally:
            seats.append(run)

    return run_one


# Hosts of one hub


@asynccontextmanager
async def hub_of_hosts(
    options: Options, count: int, *, is_direct: bool = True
) -> AsyncIterator[Load]:
    """Yield what loads one hub of so many hosts.

    Args:
        options: of the hub, with the shards of each host.
        count: hosts.
        is_direct: there is one client, which knows all of them. Else there is one at each,
            which knows no other.
    """
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

        yield load_of(bench, run_one)


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
