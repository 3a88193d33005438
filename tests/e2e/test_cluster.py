"""Real hosts on one store: what lives on one is reached through any, whoever comes and goes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from typing import TYPE_CHECKING, TypeVar

import pytest

from shardrt import Client, StartRequest
from shardrt.client.session import Session
from tests.e2e.conftest import UNSAFE
from tests.serving import STOP_TIMEOUT_S, Served
from tests.waiting import eventually, wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    Hosts = Callable[..., Served]

pytestmark = [pytest.mark.proc, pytest.mark.slow]

PARTITIONS = 8
TTL_S = 2.0
WORKERS = 6
L = TypeVar("L", bound="Load")


@pytest.fixture
def hosts(store_url: str, tmp_path: Path) -> Iterator[Hosts]:
    """Make hosts of one hub, by name; not started yet."""
    made: list[Served] = []

    def make(name: str, *options: str, store_url: str = store_url) -> Served:
        directory = tmp_path / name
        directory.mkdir()
        served = Served(
            store_url,
            directory,
            *("--host-id", name, "--shards", "1", "--partitions", str(PARTITIONS), *options),
            app="tests.e2e.cluster_app:app",
            variables=UNSAFE | {"SHARDRT_HOST_LEASE_TTL_S": str(TTL_S)},
        )
        made.append(served)
        return served

    yield make
    for served in made:
        served.close()


def owners(host: Served) -> list[str | None]:
    return [row["owner"] for row in host.ask("cluster")["partitions"]]


async def owned(client: Client) -> dict[str | None, int]:
    found = [row["owner"] for row in (await client.cluster())["partitions"]]
    return {owner: found.count(owner) for owner in set(found)}


async def share_evenly(client: Client) -> None:
    """Wait until each of two hosts owns its half."""

    async def even() -> bool:
        return await owned(client) == {"a": PARTITIONS // 2, "b": PARTITIONS // 2}

    await eventually(even, within_s=20)


def test_two_hosts_are_one_hub(hosts: Hosts) -> None:
    a, b = hosts("a").start(), hosts("b").start()
    asyncio.run(reach_everything(a, b))
    # Lists may be a checkpoint behind.
    wait_until(lambda: len(b.ask("list", "--name", "waiter")) == PARTITIONS)
    view = a.ask("cluster")
    assert {host["host_id"]: host["address"] for host in view["hosts"]} == {"a": a.url, "b": b.url}
    assert not any(host["draining"] for host in view["hosts"])


async def reach_everything(a: Served, b: Served) -> None:
    async with await Client.connect(a.url) as one, await Client.connect(b.url) as other:
        await share_evenly(one)
        waiters = [f"waiter!{number}" for number in range(PARTITIONS)]
        await one.start_many([StartRequest("waiter", None, instance_id=each) for each in waiters])
        waiting = [asyncio.ensure_future(other.handle(each).result()) for each in waiters]
        parent = await other.start("family", PARTITIONS, instance_id="parent!0")
        assert await parent.result() == sum(2 * n for n in range(PARTITIONS)) + PARTITIONS
        ended = await asyncio.gather(*waiting)
        assert ended == [f"on {n}" for n in range(PARTITIONS)]
        for client in (one, other):
            for number in range(PARTITIONS):
                assert await client.call_entity(f"@counter@c!{number}", "add", 0) == 1


@pytest.mark.parametrize("store_url", ["postgres"], indirect=True)
@pytest.mark.pg
def test_the_partitions_of_a_killed_host_are_served_by_the_other(hosts: Hosts) -> None:
    a, b = hosts("a").start(), hosts("b").start()
    asyncio.run(outlive(a, b))


async def outlive(a: Served, b: Served) -> None:
    async with await Client.connect(b.url) as client:
        await share_evenly(client)
        ids = [f"s!{number}" for number in range(PARTITIONS)]
        handles = await client.start_many(
            [StartRequest("sleeper", 1.0, instance_id=each) for each in ids]
        )
        parent = await client.start("family", PARTITIONS, instance_id="parent!0")
        a.kill()
        statuses = await asyncio.gather(*(client.get(each) for each in ids))
        assert None not in statuses
        assert await asyncio.gather(*(handle.result() for handle in handles)) == [1.0] * PARTITIONS
        assert await parent.result() == sum(2 * n for n in range(PARTITIONS)) + PARTITIONS
        assert await owned(client) == {"b": PARTITIONS}


def test_no_request_fails_while_hosts_come_and_go(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Clients would try again what is refused, but they are not even told.
    refusals: list[str] = []
    monkeypatch.setattr(
        Session, "_on_refusal", lambda _, __, refusal: refusals.append(refusal.message)
    )
    a, b = hosts("a").start(), hosts("b")
    asyncio.run(come_and_go(a, b))
    assert refusals == []


async def come_and_go(a: Served, b: Served) -> None:
    async with await Client.connect(a.url, call_timeout_s=15) as near:
        async with load(near) as first:
            await first.progress()
            b.launch()
            await eventually(b._ready, within_s=60)
            await share_evenly(near)
            await first.progress()
            both = await Client.connect(f"{a.url},{b.url}", call_timeout_s=15)
            async with both, await Client.connect(b.url, call_timeout_s=15) as far:
                async with load(both) as second, load(far) as third:
                    await second.progress()
                    await first.stop()
                    sleeping = await near.start("sleeper", 1.0, instance_id="last!0")
                    long_wait = asyncio.ensure_future(both.handle(sleeping.instance_id).result())
                    os.kill(a.pid, signal.SIGTERM)
                    await eventually(lambda: not a.running, within_s=STOP_TIMEOUT_S)
                    await second.progress()
                    await third.progress()
                    assert await long_wait == 1.0
                assert await owned(far) == {"b": PARTITIONS}
    assert a.exit_code == 0, a.stderr
    failures = [*first.failures, *second.failures, *third.failures]
    assert failures == []


class Load:
    """Starts and waits, one after the other, by several workers."""

    workers = WORKERS

    def __init__(self, client: Client) -> None:
        self._client = client
        self._going = True
        self.done = 0
        self.failures: list[str] = []

    async def work(self) -> None:
        while self._going:
            try:
                handle = await self._client.start("work", self.done)
                await handle.result()
                self.done += 1
            except Exception as error:  # noqa: BLE001 - whatever it is, there should be none
                self.failures.append(repr(error))

    async def progress(self) -> None:
        """Wait until every worker has probably done something again."""
        before = self.done
        await eventually(lambda: self.done >= before + 3 * WORKERS, within_s=20)

    async def stop(self) -> None:
        self._going = False


class Counting(Load):
    """Counts in every partition. Nothing is lost or done twice: each answer is the next number."""

    workers = PARTITIONS

    def __init__(self, client: Client) -> None:
        super().__init__(client)
        self._free = iter(range(PARTITIONS))
        self.counts = [0] * PARTITIONS

    async def work(self) -> None:
        partition = next(self._free)
        while self._going:
            try:
                count = await self._client.call_entity(f"@counter@k!{partition}", "add", 1)
            except Exception as error:  # noqa: BLE001 - whatever it is, there should be none
                self.failures.append(repr(error))
                continue
            self.counts[partition] += 1
            if count != self.counts[partition]:
                self.failures.append(f"{count} in {partition}, not {self.counts[partition]}")

    async def progress(self) -> None:
        """Wait until every partition has done something again."""
        before = list(self.counts)
        await eventually(
            lambda: all(now > old + 2 for now, old in zip(self.counts, before, strict=True)),
            within_s=20,
        )


def load(client: Client) -> contextlib.AbstractAsyncContextManager[Load]:
    return working(Load(client))


@contextlib.asynccontextmanager
async def working(going: L) -> AsyncIterator[L]:
    workers = [asyncio.ensure_future(going.work()) for _ in range(going.workers)]
    try:
        yield going
        await going.stop()
        async with asyncio.timeout(20):
            await asyncio.gather(*workers)
    finally:
        for worker in workers:
            worker.cancel()


@pytest.mark.parametrize("store_url", ["postgres"], indirect=True)
@pytest.mark.pg
def test_a_client_that_knows_all_hosts_loses_nothing_when_one_is_frozen_or_killed(
    hosts: Hosts,
) -> None:
    a, b = hosts("a").start(), hosts("b").start()
    asyncio.run(outlive_with_lines(a, b))


async def outlive_with_lines(a: Served, b: Served) -> None:
    client = await Client.connect([a.url, b.url], call_timeout_s=30)
    async with client, await Client.connect(a.url) as watcher:
        await share_evenly(watcher)
        async with working(Counting(client)) as counting, load(client) as going:
            await counting.progress()
            frozen = b.family()
            for pid in frozen:
                os.kill(pid, signal.SIGSTOP)
            await eventually(lambda: is_owned_by(watcher, "a"), within_s=20)
            await counting.progress()
            for pid in frozen:
                os.kill(pid, signal.SIGCONT)
            await share_evenly(watcher)
            await counting.progress()
            await asyncio.to_thread(b.kill_all)
            await eventually(lambda: is_owned_by(watcher, "a"), within_s=20)
            await counting.progress()
            await going.progress()
    assert [*counting.failures, *going.failures] == []


async def is_owned_by(client: Client, host: str) -> bool:
    return await owned(client) == {host: PARTITIONS}


@pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)
def test_a_client_that_knows_all_hosts_goes_to_each_itself(hosts: Hosts, tmp_path: Path) -> None:
    # They do not let each other in, so nothing that is asked of one reaches the other.
    served = []
    for name in ("a", "b"):
        (tmp_path / f"token-{name}").write_text(f"secret-of-{name}\nshared\n")
        served.append(hosts(name, "--token-file", str(tmp_path / f"token-{name}")).start())
    asyncio.run(go_to_each(*served))


async def go_to_each(a: Served, b: Served) -> None:
    async with await Client.connect(a.url, token="shared") as one:
        await share_evenly(one)
        asked = [asyncio.ensure_future(count_on(one, each)) for each in range(PARTITIONS)]
        await eventually(lambda: "refuses our token" in a.stderr)
        assert sum(each.done() for each in asked) <= PARTITIONS // 2
        async with await Client.connect([a.url, b.url], token="shared") as both:
            for number in range(20):
                ids = [f"w{number}!{each}" for each in range(PARTITIONS)]
                handles = await both.start_many([StartRequest("work", 1, each) for each in ids])
                assert await asyncio.gather(*(each.result() for each in handles)) == [2] * len(ids)
        for each in asked:
            each.cancel()


async def count_on(client: Client, partition: int) -> int:
    count: int = await client.call_entity(f"@counter@c!{partition}", "add", 1)
    return count


@pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)
def test_hosts_with_different_tokens_do_not_talk_to_each_other(
    hosts: Hosts, tmp_path: Path
) -> None:
    served = []
    for name in ("a", "b"):
        (tmp_path / f"token-{name}").write_text(f"secret-of-{name}")
        served.append(hosts(name, "--token-file", str(tmp_path / f"token-{name}")).start())
    asyncio.run(refused(served[0]))
    assert "host b at http://127.0.0.1" in served[0].stderr
    assert "it refuses our token; all hosts of a hub need" in served[0].stderr


async def refused(a: Served) -> None:
    async with await Client.connect(a.url, token="secret-of-a") as client:
        await share_evenly(client)
        ids = [f"w!{number}" for number in range(PARTITIONS)]
        asked = [asyncio.ensure_future(client.start("work", 1, instance_id=each)) for each in ids]
        await eventually(lambda: "refuses our token" in a.stderr)
        for each in asked:
            each.cancel()
