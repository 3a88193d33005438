"""Hosts that are killed, stopped and started under load: how long until others serve.

    python -m benchmarks.takeover [--hosts 3] [--repetitions 3] [--ttl 10] [--json FILE]

For each repetition the last host is killed (kill -9 of all its processes), started again, ended by
SIGTERM, and started again, while every partition is called without a pause and `hello` runs beside.
Without `--store` it starts a Postgres of its own with fsync on. All on one machine: what
networks add is not in it.
"""

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from benchmarks.takeover.probing import (
    Callers,
    Watch,
    is_even,
    is_there,
    partitions_of,
    running,
)
from shardrt import Client
from shardrt.bench.figures import machine, versions
from shardrt.bench.hosts import Served
from shardrt.bench.options import Options
from shardrt.bench.stores import store
from shardrt.store.base import View
from shardrt.store.factory import make_store

CALL_TIMEOUT_S = 60.0
EVENT_S_MAX = 120.0
CALM_S = 1.0
"""Before each event: so long everything runs as it should."""
KILL_SLACK_S = 5.0
STOP_S_MAX = 1.0


@dataclass(frozen=True)
class Event:
    """What was measured when one host came or went."""

    what: str
    seconds: list[float]
    """For each partition that moved: until it served elsewhere."""
    longest_call_s: float
    requests: int
    failed: list[str]


class Hosts:
    """The hosts of one run, by name."""

    def __init__(self, url: str, names: str, *, options: Options, ttl_s: float) -> None:
        self.names = names
        self._served = {
            name: Served(
                options, url, "--host-id", name, variables={"SHARDRT_HOST_LEASE_TTL_S": str(ttl_s)}
            )
            for name in names
        }

    def __getitem__(self, name: str) -> Served:
        return self._served[name]

    @property
    def urls(self) -> list[str]:
        return [served.url for served in self._served.values()]


class Bout:
    """Measures one event after the other on one cluster."""

    def __init__(self, hosts: Hosts, callers: Callers, watch: Watch) -> None:
        self._hosts = hosts
        self._callers = callers
        self._watch = watch
        self._last = hosts.names[-1]

    async def kill(self) -> Event:
        return await self._leave("kill -9", self._hosts[self._last].kill)

    async def stop(self) -> Event:
        return await self._leave("SIGTERM", self._hosts[self._last].stop)

    async def join(self) -> Event:
        """Count from when the host has told the others that it is there."""
        served = self._hosts[self._last]
        before = (self._callers.calls.done, len(self._callers.calls.failures))
        starting = asyncio.ensure_future(served.start())
        await self.until(lambda view: is_there(view, self._last))
        began_s = time.monotonic()
        moved: dict[int, float] = {}

        def settled(view: View) -> bool:
            for partition in partitions_of(view, self._last):
                moved.setdefault(partition, time.monotonic())
            return is_even(view, self._hosts.names)

        await self.until(settled)
        seconds = await self._answered(moved, began_s)
        await starting
        return self._event("join", seconds, began_s, before)

    async def _leave(self, what: str, end: Callable[[], Any]) -> Event:
        await asyncio.sleep(CALM_S)
        view = await self._watch.look()
        leaving = partitions_of(view, self._last)
        before = (self._callers.calls.done, len(self._callers.calls.failures))
        began_s = time.monotonic()
        ending = asyncio.ensure_future(end())
        moved: dict[int, float] = {}

        def gone(view: View) -> bool:
            others = set().union(*(partitions_of(view, name) for name in self._hosts.names[:-1]))
            for partition in leaving & others:
                moved.setdefault(partition, time.monotonic())
            return moved.keys() == leaving

        await self.until(gone)
        seconds = await self._answered(moved, began_s)
        await ending
        return self._event(what, seconds, began_s, before)

    async def until(self, condition: Callable[[View], bool]) -> None:
        async with asyncio.timeout(EVENT_S_MAX):
            while not condition(await self._watch.look()):
                pass

    async def _answered(self, moved: dict[int, float], began_s: float) -> list[float]:
        """Wait for an answer of each after its move; return how long that took."""
        answered = self._callers.calls.answered_s
        seconds: dict[int, float] = {}
        async with asyncio.timeout(EVENT_S_MAX):
            while len(seconds) < len(moved):
                for partition, moved_s in moved.items():
                    if partition not in seconds and answered.get(partition, 0.0) >= moved_s:
                        seconds[partition] = answered[partition] - began_s
                await self._watch.look()
        return sorted(seconds.values())

    def _event(
        self, what: str, seconds: list[float], began_s: float, before: tuple[int, int]
    ) -> Event:
        calls = self._callers.calls
        return Event(
            what=what,
            seconds=seconds,
            longest_call_s=calls.longest_s(began_s),
            requests=calls.done - before[0],
            failed=calls.failures[before[1] :],
        )


async def measure(
    url: str, names: str, *, options: Options, ttl_s: float, unsafe: bool = False
) -> list[Event]:
    """Start the hosts, run all repetitions (`options.n`), and end the hosts."""
    async with AsyncExitStack() as stack:
        hosts = Hosts(url, names, options=options, ttl_s=ttl_s)
        for name in names:
            await stack.enter_async_context(hosts[name])
        look = make_store(url, unsafe=unsafe)
        await look.open()
        stack.push_async_callback(look.close)
        urls = hosts.urls
        clients = [
            await stack.enter_async_context(
                await Client.connect([*urls[n:], *urls[:n]], call_timeout_s=CALL_TIMEOUT_S)
            )
            for n in range(len(urls))
        ]
        callers, watch = Callers(clients, options.partitions, options.concurrency), Watch(look)
        bout = Bout(hosts, callers, watch)
        async with running(callers, watch):
            await bout.until(lambda view: is_even(view, names))
            round_trip = (bout.kill, bout.join, bout.stop, bout.join)
            return [await event() for _ in range(options.n) for event in round_trip]
    raise AssertionError("unreachable")


def quantile(seconds: Sequence[float], part: float) -> float:
    return seconds[min(len(seconds) - 1, int(len(seconds) * part))] if seconds else 0.0


def figures(events: Sequence[Event], ttl_s: float) -> list[dict[str, Any]]:
    """Sum up the events of each kind, with what is aimed at."""
    targets = {"kill -9": ttl_s + KILL_SLACK_S, "SIGTERM": STOP_S_MAX, "join": None}
    found = []
    for what, target_s in targets.items():
        same = [event for event in events if event.what == what]
        seconds = sorted(second for event in same for second in event.seconds)
        found.append(
            {
                "event": what,
                "times": len(same),
                "partitions_moved": len(seconds),
                "p50_s": round(quantile(seconds, 0.5), 3),
                "p99_s": round(quantile(seconds, 0.99), 3),
                "max_s": round(quantile(seconds, 1.0), 3),
                "target_s": target_s,
                "longest_call_s": round(max((e.longest_call_s for e in same), default=0.0), 3),
                "requests": sum(event.requests for event in same),
                "failed": sum(len(event.failed) for event in same),
            }
        )
    return found


def table_of(rows: Sequence[dict[str, Any]]) -> Table:
    table = Table(title="until partitions serve elsewhere, in seconds", box=SIMPLE)
    heads = ("", "times", "moved", "p50", "p99", "max", "target", "slowest", "calls", "failed")
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    for row in rows:
        target = "-" if row["target_s"] is None else f"{row['target_s']:g}"
        table.add_row(*(target if key == "target_s" else str(row[key]) for key in row))
    return table


@click.command()
@click.option("--hosts", type=click.IntRange(2, 8), default=3, show_default=True)
@click.option("--shards", default=1, show_default=True, help="Of each host.")
@click.option("--partitions", default=32, show_default=True)
@click.option("--ttl", "ttl_s", default=10.0, show_default=True, help="Of leases, in seconds.")
@click.option("--callers", default=4, show_default=True, help="That run `hello` beside.")
@click.option("--repetitions", default=3, show_default=True)
@click.option("--store", "store_url", help="Store URL [default: a throw-away Postgres].")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write all of it here.")
def main(  # noqa: PLR0913, PLR0917 - one per option
    hosts: int,
    shards: int,
    partitions: int,
    ttl_s: float,
    callers: int,
    repetitions: int,
    store_url: str | None,
    json_file: Path | None,
) -> None:
    """Measure how long partitions are without a host when hosts come and go."""
    names = "abcdefgh"[:hosts]
    options = Options(
        n=repetitions, concurrency=callers, warmup=0, shards=shards, partitions=partitions
    )
    with store(store_url) as url:
        events = asyncio.run(measure(url, names, options=options, ttl_s=ttl_s))
    rows = figures(events, ttl_s)
    Console().print(table_of(rows))
    for failure in sorted({failure for event in events for failure in event.failed}):
        click.echo(failure)
    if json_file is not None:
        settings = {"hosts": hosts, "ttl_s": ttl_s, "callers": callers, **asdict(options)}
        report = {"machine": machine(), "versions": versions(), "settings": settings}
        everything = report | {"figures": rows, "events": [asdict(event) for event in events]}
        json_file.write_text(json.dumps(everything, indent=2, default=str) + "\n")


if __name__ == "__main__":
    main()
