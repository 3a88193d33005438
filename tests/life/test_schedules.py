"""Schedules in virtual time: each due time starts one instance, whatever happens to hosts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import msgspec
import pytest
from msgspec import Raw

from shardrt import App, OrchestrationContext, Runtime
from shardrt.client.schedules import ScheduleClient, ScheduleStatus
from shardrt.client.views import OrchestrationStatus, status_of
from shardrt.config import Settings
from shardrt.config.settings import ShardSettings
from shardrt.core import requests as r
from shardrt.core.history import Status
from shardrt.errors import ConfigInvalid, InputInvalid, InstanceExists, InstanceNotFound
from shardrt.orchestration.schedules import SCHEDULE
from shardrt.testing.client import HubClient, Refused
from shardrt.testing.hub import Hub
from shardrt.testing.virtual import START_US, pass_time, run_virtual
from tests.loops import in_loop
from tests.waiting import eventually

SETTINGS = Settings(shard=ShardSettings(checkpoint_interval_s=0.5))
BEGIN = datetime.fromtimestamp(START_US // 1_000_000, UTC)
"""A Tuesday, 22:13:20."""

app = App()


@app.orchestrator
async def job(ctx: OrchestrationContext, seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "done"


@app.orchestrator
async def failing(ctx: OrchestrationContext) -> None:
    raise ValueError("no")


class Scheduler(ScheduleClient):
    """The schedule part of a client, on a hub in virtual time."""

    def __init__(self, client: HubClient) -> None:
        self.hub = client

    async def start(
        self,
        name: str,
        input: object,  # noqa: A002
        *,
        instance_id: str,
        on_conflict: str,
    ) -> None:
        payload = Raw(msgspec.json.encode(input))
        try:
            await self.hub.call(instance_id, r.Start(name, payload, on_conflict=on_conflict))
        except Refused as refused:
            raise InstanceExists(str(refused)) from None

    async def get(self, instance_id: str) -> OrchestrationStatus | None:
        snapshot = await self.hub.get(instance_id)
        return None if snapshot is None else status_of(snapshot)

    async def raise_event(self, instance_id: str, name: str, data: object) -> None:
        await self.hub.raise_event(instance_id, name, data)

    async def terminate(self, instance_id: str, reason: str, *, recursive: bool) -> None:
        await self.hub.call(instance_id, r.Terminate(reason, recursive))

    async def purge(self, instance_id: str) -> None:
        await self.hub.purge(instance_id)


Play = Callable[[Hub, Scheduler], Awaitable[None]]


def play(scenario: Play, **options: Any) -> None:
    async def main() -> None:
        async with Hub(app, settings=SETTINGS, **options) as hub:
            await scenario(hub, Scheduler(HubClient(hub)))
            assert hub.broken == []

    run_virtual(main())


async def status(scheduler: Scheduler, schedule_id: str = "s") -> ScheduleStatus:
    found = await scheduler.get_schedule(schedule_id)
    assert found is not None
    return found


async def started(hub: Hub, name: str = "s") -> dict[str, Status]:
    """Return the instances that a schedule has started: what follows its id, and their status."""
    await pass_time(1.5)  # the read model is behind
    found: dict[str, Status] = {}
    for partition in range(hub.partitions):
        host = hub.host_of(partition)
        assert host is not None
        for row in hub.store._hub.partitions[partition].instances.values():
            if row.instance_id.startswith(f"{name}:"):
                found[row.instance_id.removeprefix(f"{name}:")] = Status(row.status)
    return dict(sorted(found.items()))


def stamps(*times: str) -> list[str]:
    return [f"20231114T{time}Z" for time in times]


def test_each_due_time_starts_one_instance():
    async def scenario(hub: Hub, scheduler: Scheduler) -> None:
        await scheduler.schedule("s", job, 1, cron="*/5 * * * *")
        assert (await status(scheduler)).next_due == datetime(2023, 11, 14, 22, 15, tzinfo=UTC)
        await pass_time(15 * 60)
        found = await started(hub)
        assert found == dict.fromkeys(stamps("221500", "222000", "222500"), Status.COMPLETED)
        seen = await status(scheduler)
        assert (seen.started, seen.skipped, seen.last_instance_id) == (3, 0, "s:20231114T222500Z")

    play(scenario)


def test_an_interval_counts_from_the_start():
    async def scenario(hub: Hub, scheduler: Scheduler) -> None:
        start = BEGIN + timedelta(seconds=40)
        end = start + timedelta(seconds=61)
        await scheduler.schedule("s", job, 1, every=timedelta(seconds=30), start=start, end=end)
        await pass_time(200)
        assert list(await started(hub)) == stamps("221400", "221430", "221500")
        seen = await status(scheduler)
        assert (seen.ended, seen.next_due) == (True, None)

    play(scenario)


def test_a_due_time_is_skipped_while_the_instance_before_runs():
    async def scenario(hub: Hub, scheduler: Scheduler) -> None:
        await scheduler.schedule("s", job, 70, cron="* * * * *")
        await pass_time(5 * 60)
        assert list(await started(hub)) == stamps("221400", "221600", "221800")
        assert (await status(scheduler)).skipped == 2

    play(scenario)


def test_a_due_time_queues_up_behind_the_instance_before():
    async def scenario(hub: Hub, scheduler: Scheduler) -> None:
        await scheduler.schedule("s", job, 70, cron="* * * * *", overlap="queue")
        await pass_time(5 * 60)
        found = await started(hub)
        assert list(found) == stamps("221400", "221500", "221600", "221700")
        running = [stamp for stamp, each in found.items() if each is Status.RUNNING]
        assert running == stamps("221700")

    play(scenario)


def test_instances_may_overlap():
    async def scenario(hub: Hub, scheduler: Scheduler) -> None:
        await scheduler.schedule("s", job, 170, cron="* * * * *", overlap="allow")
        await pass_time(3 * 60)
        found = await started(hub)
        assert found == dict.fromkeys(stamps("221400", "221500", "221600"), Status.RUNNING)

    play(scenario)


def test_an_instance_takes_the_place_of_the_one_before():
    async def scenario(hub: Hub, scheduler: Scheduler) -> None:
        await scheduler.schedule("s", job, 90, cron="* * * * *", overlap="replace")
        await pass_time(3 * 60)
        first, second, third = stamps("221400", "221500", "221600")
        assert await started(hub) == {
            first: Status.TERMINATED,
            second: Status.TERMINATED,
            third: Status.RUNNING,
        }

    play(scenario)


def test_a_failed_instance_does_not_end_the_schedule():
    async def scenario(hub: Hub, scheduler: Scheduler) -> None:
        await scheduler.schedule("s", failing, cron="* * * * *")
        await pass_time(150)
        assert set((await started(hub)).values()) == {Status.FAILED}
        seen = await status(scheduler)
        assert (seen.started, seen.last_failure) == (2, "ValueError: no")

    play(scenario)


@pytest.mark.parametrize(
    ("catch_up", "overlap", "caught_up"),
    [
        ("none", "skip", stamps("221700")),  # less than a minute ago
        ("last", "skip", stamps("221700")),
        ("all", "queue", stamps("221400", "221500", "221600", "221700")),
        ("all", "skip", stamps("221400", "221500", "221600", "221700")),
        ("all", "allow", stamps("221400", "221500", "221600", "221700")),
    ],
)
def test_what_was_missed_while_no_host_ran(catch_up: Any, overlap: Any, caught_up: list[str]):
    async def scenario(hub: Hub, scheduler: Scheduler) -> None:
        await scheduler.schedule("s", job, 1, cron="* * * * *", catch_up=catch_up, overlap=overlap)
        await nobody_hosts_until_221744(hub)
        await pass_time(50)
        assert list(await started(hub)) == caught_up + stamps("221800")

    play(scenario)


def test_what_was_missed_long_ago_can_be_left_out():
    async def scenario(hub: Hub, scheduler: Scheduler) -> None:
        await scheduler.schedule("s", job, 1, cron="*/3 * * * *", catch_up="none")
        await nobody_hosts_until_221744(hub)
        await pass_time(50)
        assert list(await started(hub)) == stamps("221800")
        assert (await status(scheduler)).skipped == 1

    play(scenario)


async def nobody_hosts_until_221744(hub: Hub) -> None:
    await pass_time(2)
    hub.moves = False
    for partition in range(hub.partitions):
        hub.revoke(partition)
    await pass_time(262)
    for partition in range(hub.partitions):
        await hub.assign(partition, hub.members[0])
    hub.moves = True


@pytest.mark.runs(6)
def test_each_due_time_starts_exactly_one_instance_whatever_host_dies(seed: int):
    async def scenario(hub: Hub, scheduler: Scheduler) -> None:
        await scheduler.schedule("s", job, 3, cron="*/10 * * * * *", overlap="allow")
        ended = 0.0
        while ended < 300:
            pause = hub.random.uniform(0.0, 15.0)
            await pass_time(pause)
            ended += pause
            hub.crash(hub.random.choice(hub.members))
        await pass_time(30)
        seen = await status(scheduler)
        found = await started(hub)
        first = datetime(2023, 11, 14, 22, 13, 30, tzinfo=UTC)
        expected = [
            f"{first + timedelta(seconds=10 * n):%Y%m%dT%H%M%S}Z" for n in range(len(found))
        ]
        assert list(found) == expected
        assert len(found) >= 33
        assert seen.started in {len(found), len(found) - 1}
        executions = {
            row.execution_id
            for each in hub.store._hub.partitions
            for row in each.instances.values()
            if row.instance_id.startswith("s:")
        }
        assert len(executions) == len(found)

    play(scenario, seed=seed)


def test_a_paused_schedule_starts_nothing_and_does_not_make_up_for_it():
    async def scenario(hub: Hub, scheduler: Scheduler) -> None:
        await scheduler.schedule("s", job, 1, cron="* * * * *")
        await pass_time(60)
        await scheduler.pause_schedule("s")
        seen = await status(scheduler)
        assert (seen.paused, seen.next_due) == (True, None)
        await pass_time(180)
        await scheduler.resume_schedule("s")
        await pass_time(60)
        assert list(await started(hub)) == stamps("221400", "221800")

    play(scenario)


def test_a_triggered_instance_starts_now():
    async def scenario(hub: Hub, scheduler: Scheduler) -> None:
        await scheduler.schedule("s", job, 1, cron="0 * * * *")
        await scheduler.pause_schedule("s")
        await scheduler.trigger_schedule("s")
        await scheduler.trigger_schedule("s")
        await pass_time(5)
        found = await started(hub)
        assert [stamp.rpartition(":")[2] for stamp in found] == ["1", "2"]
        assert set(found.values()) == {Status.COMPLETED}

    play(scenario)


def test_a_schedule_can_be_replaced_and_deleted():
    async def scenario(hub: Hub, scheduler: Scheduler) -> None:
        await scheduler.schedule("s", job, 1, cron="* * * * *")
        with pytest.raises(InstanceExists):
            await scheduler.schedule("s", job, 1, cron="*/2 * * * *")
        await scheduler.schedule("s", job, 600, cron="*/2 * * * *", replace=True)
        await pass_time(180)
        assert list(await started(hub)) == stamps("221400")
        await scheduler.delete_schedule("s")
        assert await scheduler.get_schedule("s") is None
        with pytest.raises(InstanceNotFound):
            await scheduler.delete_schedule("s")
        await pass_time(600)
        assert await started(hub) == {"20231114T221400Z": Status.COMPLETED}

    play(scenario)


def test_jitter_delays_each_start_by_an_amount_of_its_own():
    async def scenario(hub: Hub, scheduler: Scheduler) -> None:
        await scheduler.schedule("s", job, 0, every=60, jitter=30)
        await pass_time(60 * 10 + 40)
        delays = set()
        for each in await started(hub):
            found = await scheduler.hub.get(f"s:{each}")
            assert found is not None
            due = datetime.fromisoformat(each)
            delay = found.created_at / 1e6 - due.timestamp()
            assert 0 <= delay < 32
            delays.add(round(delay))
        assert len(delays) > 3

    play(scenario)


def test_nonsense_does_not_end_a_schedule():
    async def scenario(hub: Hub, scheduler: Scheduler) -> None:
        await scheduler.schedule("s", job, 1, cron="* * * * *")
        await scheduler.raise_event("schedule:s", SCHEDULE, {"op": "explode"})
        await pass_time(60)
        assert (await status(scheduler)).started == 1

    play(scenario)


def test_its_history_does_not_grow():
    async def scenario(hub: Hub, scheduler: Scheduler) -> None:
        await scheduler.schedule("s", job, 0, every=1)
        await pass_time(300)
        history = await scheduler.hub.history("schedule:s")
        assert history is not None
        assert len(history) < 12
        assert (await status(scheduler)).started >= 298

    play(scenario)


def test_the_name_is_taken():
    with pytest.raises(ConfigInvalid, match="built in"):
        App().orchestrator(name=SCHEDULE)(job)


# -- through client, HTTP and command line ---------------------------------------------------------


@in_loop
async def test_the_client_and_the_api_know_schedules() -> None:
    settings = {"shard.checkpoint_interval_s": 0.05}
    async with Runtime(app, partitions=4, settings=settings) as runtime:
        client = runtime.client
        await client.schedule("nightly", job, 1, cron="0 3 * * *", timezone="Europe/Berlin")
        with pytest.raises(InputInvalid, match="not a cron expression"):
            await client.schedule("other", job, 1, cron="never")

        async def listed() -> list[str]:
            return [each.schedule_id async for each in client.schedules()]

        await eventually(lambda: _is(listed(), ["nightly"]))
        transport = httpx.ASGITransport(runtime.asgi())
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as http:
            root = "/runtime/schedules"
            body = {"orchestrator": "job", "input": 0, "every": 0.1, "overlap": "queue"}
            put = await http.put(f"{root}/quick", json=body)
            assert put.status_code == 201, put.text
            assert (await http.put(f"{root}/quick", json=body)).status_code == 409
            again = await http.put(f"{root}/quick", json=body | {"replace": True})
            assert again.status_code == 201

            async def count() -> int:
                return int((await http.get(f"{root}/quick")).json()["started"])

            await eventually(lambda: _at_least(count(), 3))
            for verb in ("pause", "resume", "trigger"):
                assert (await http.post(f"{root}/quick/{verb}")).status_code == 202
            await eventually(lambda: _is(listed(), ["nightly", "quick"]))
            shapes = (await http.get(root)).json()["schedules"]
            assert [each["scheduleId"] for each in shapes] == ["nightly", "quick"]
            assert (shapes[0]["cron"], shapes[0]["timezone"]) == ("0 3 * * *", "Europe/Berlin")
            assert (await http.put(f"{root}/bad", json={"orchestrator": "job"})).status_code == 400
            assert (await http.delete(f"{root}/quick")).status_code == 200
            assert (await http.get(f"{root}/quick")).status_code == 404
            assert (await http.delete(f"{root}/quick")).status_code == 404
            assert json.loads((await http.get(f"{root}/nightly")).text)["paused"] is False


async def _is(found: Awaitable[object], expected: object) -> bool:
    return await found == expected


async def _at_least(found: Awaitable[int], expected: int) -> bool:
    return await found >= expected
