"""Where scenarios are played, all at the same time: on which store, and with what in the middle."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from shardrt import Client, Runtime
from shardrt.config import load
from shardrt.testing import Environment, run_virtual
from tests.matrix import app as main, sealed
from tests.matrix.stage import Stage
from tests.serving import Served
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from shardrt import App
    from tests.matrix.stage import Scenario

    Strike = Callable[[], Awaitable[Client]]
    Place = AbstractAsyncContextManager[tuple[Client, Strike]]

MODES = {
    "memory": ("undisturbed", "host killed"),
    "sqlite": ("undisturbed", "host killed", "shards killed"),
    "postgres": ("undisturbed", "host killed", "shards killed"),
}
PARTITIONS = 8
BEGIN_S = 20.0
"""So long it may take to get into the middle; what is not there by then is not waited for."""
END_S = 40.0
VIRTUAL_S = 3600.0
"""Both, where time is made up."""


@dataclass(frozen=True)
class Group:
    """Scenarios that share a host."""

    app: App
    reference: str
    settings: Mapping[str, object]
    patient: str
    """An orchestrator that takes a text and then waits."""
    shards: int = 2


GROUPS = {
    "main": Group(main.app, "tests.matrix.app:app", {"host.lease_ttl_s": 3.0}, "greet"),
    sealed.GROUP: Group(
        sealed.app, "tests.matrix.sealed:app", sealed.SETTINGS, "keeps_secret", shards=1
    ),
}
ON_POSTGRES = replace(
    GROUPS["main"], app=main.on_postgres, reference="tests.matrix.app:on_postgres"
)


@dataclass
class Run:
    """All scenarios on one store in one mode."""

    store: str
    mode: str
    directory: Path
    urls: Mapping[str, str]
    """Of an empty hub for each group."""

    def outcomes(self, scenarios: list[Scenario]) -> dict[str, BaseException | None]:
        """Play all that belong here; return what each of them ended with, None if well."""
        virtual = self.store == "memory" and self.mode == "host killed"
        here = [each for each in scenarios if self.store in each.stores]
        chosen = [each for each in here if each.virtual or not virtual]

        async def play() -> dict[str, BaseException | None]:
            groups = (
                self._play(name, [each for each in chosen if each.group == name], virtual)
                for name in GROUPS
            )
            return {name: error for each in await asyncio.gather(*groups) for name, error in each}

        if not virtual:
            return asyncio.run(play())
        found: dict[str, BaseException | None] = {}
        for name in GROUPS:  # in virtual time, one after the other: a loop has one environment
            main = self._play(name, [each for each in chosen if each.group == name], virtual)
            found |= run_virtual(main)
        return found

    async def _play(
        self, group: str, scenarios: list[Scenario], virtual: bool
    ) -> list[tuple[str, BaseException | None]]:
        url = self.urls[group]
        on_postgres = group == "main" and self.store == "postgres"
        served = ON_POSTGRES if on_postgres else GROUPS[group]
        async with self._place(served, url) as (client, strike):
            middle = Middle(len(scenarios), client)
            tasks = [asyncio.create_task(self._one(each, url, middle)) for each in scenarios]
            for task in tasks:
                task.add_done_callback(middle.left)
            await middle.all_are_there(VIRTUAL_S if virtual else BEGIN_S)
            middle.client = await strike()
            middle.over.set()
            await asyncio.wait(tasks, timeout=VIRTUAL_S if virtual else END_S)
            late = [task for task in tasks if task.cancel()]
            await asyncio.gather(*tasks, return_exceptions=True)
        return [
            (each.name, TimeoutError("it did not end") if task in late else task.exception())
            for each, task in zip(scenarios, tasks, strict=True)
        ]

    async def _one(self, scenario: Scenario, url: str, middle: Middle) -> None:
        directory = self.directory / scenario.name
        directory.mkdir()
        killed = self.mode != "undisturbed"
        stage = Stage(scenario.name, middle.client, directory, url, killed, middle.reached)
        try:
            await scenario.play(stage)
        finally:
            stage.open_gate()  # whatever went wrong, activities end

    def _place(self, group: Group, url: str) -> Place:
        if self.mode == "undisturbed":
            return embedded(group, url)
        if self.store == "memory":
            return environment(group)
        return served(group, url, self.directory, shards_only=self.mode == "shards killed")


class Middle:
    """Where scenarios wait for each other, and for what happens to their host."""

    def __init__(self, expected: int, client: Client) -> None:
        self.client = client
        self.over = asyncio.Event()
        self._missing = expected
        self._all = asyncio.Event()

    async def reached(self, stage: Stage) -> None:
        self._arrive()
        await self.over.wait()
        stage.client = self.client

    def left(self, _: object) -> None:
        """Note that a scenario has ended, too early if it was not here before."""
        if not self.over.is_set():
            self._arrive()

    def _arrive(self) -> None:
        self._missing -= 1
        if not self._missing:
            self._all.set()

    async def all_are_there(self, within_s: float) -> None:
        """Wait, for so long; those that come later find the middle over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._all.wait()


@asynccontextmanager
async def embedded(group: Group, url: str) -> AsyncIterator[tuple[Client, Strike]]:
    """A runtime to which nothing happens."""
    settings = {**group.settings, "store.unsafe": True, "host.drain_s": 1.0}
    async with Runtime(group.app, store=url, partitions=PARTITIONS, settings=settings) as runtime:

        async def strike() -> Client:
            return runtime.client

        yield runtime.client, strike


@asynccontextmanager
async def environment(group: Group) -> AsyncIterator[tuple[Client, Strike]]:
    """A hub in virtual time, whose host is thrown away while its store stays."""
    settings = load(overrides=dict(group.settings))
    async with Environment(group.app, settings=settings) as env:

        async def strike() -> Client:
            await env.crash()
            return env.client

        yield env.client, strike


@asynccontextmanager
async def served(
    group: Group, url: str, directory: Path, *, shards_only: bool
) -> AsyncIterator[tuple[Client, Strike]]:
    """A real host; all of its processes are killed, or its shards one after the other.

    Shards die at once, so that what began is in journals only; the host after a checkpoint.
    """
    directory = directory / group.reference
    directory.mkdir()
    options = ("--shards", str(group.shards), "--partitions", str(PARTITIONS))
    variables = {"SHARDRT_STORE_UNSAFE": "true", **variables_of(group.settings)}
    host = Served(url, directory, *options, app=group.reference, variables=variables)
    try:
        await asyncio.to_thread(host.start)
        clients = [await connect(host, group)]

        async def strike() -> Client:
            if shards_only:
                await kill_each_shard(host, clients[0])
                return clients[0]
            await everything_is_in_rows(clients[0], group)
            await asyncio.to_thread(host.kill_all)
            await asyncio.to_thread(host.start)
            clients.append(await connect(host, group))
            return clients[1]

        try:
            yield clients[0], strike
        finally:
            for client in clients:
                await client.close()
    finally:
        await asyncio.to_thread(host.close)


async def connect(host: Served, group: Group) -> Client:
    return await Client.connect(host.url, payload_codec=group.app.payload_codec)


async def everything_is_in_rows(client: Client, group: Group) -> None:
    """Wait for a checkpoint of each partition: it holds all that happened there before."""
    for number in range(PARTITIONS):
        await client.start(group.patient, "x", instance_id=f"last!{number}")

    async def are_listed() -> bool:
        return len([each async for each in client.list(id_prefix="last!")]) == PARTITIONS

    await eventually(are_listed, within_s=BEGIN_S)


async def kill_each_shard(host: Served, client: Client) -> None:
    """Kill one shard, wait until all partitions are served again, and kill the next one."""
    for pid in host.children("shard"):
        os.kill(pid, signal.SIGKILL)
        await asyncio.gather(*(client.get(f"nothing!{each}") for each in range(PARTITIONS)))


def variables_of(settings: Mapping[str, object]) -> dict[str, str]:
    """Return settings as variables of the environment."""
    return dict(named(settings))


def named(settings: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    for key, value in settings.items():
        yield f"SHARDRT_{key.replace('.', '_').upper()}", str(value)
