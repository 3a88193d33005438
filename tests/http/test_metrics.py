"""``/metrics``: exact counts of what happened, whoever runs it, and nothing per instance."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from shardrt import App, OrchestrationContext, RetryPolicy, Runtime
from shardrt.errors import OrchestrationFailed, ShardrtError, StoreUnavailable
from shardrt.host.meter import Meter
from shardrt.http.metrics import COUNT_S, MetricsApi
from shardrt.links.metrics import CATALOGUE, LABELS_MAX, Sample, Samples, add_up
from shardrt.testing.virtual import run_virtual
from tests.loops import in_loop

app = App()
attempts: list[str] = []


@app.activity
async def unsteady(name: str) -> str:
    attempts.append(name)
    if attempts.count(name) == 1:
        raise ConnectionError("not the first time")
    return name


@app.orchestrator
async def patient(ctx: OrchestrationContext, name: str) -> str:
    await ctx.create_timer(timedelta(milliseconds=1))
    data = await ctx.wait_for_event("go", str)
    return data + await ctx.call_activity(unsteady, name, retry=RetryPolicy(first_interval=0.001))


@app.orchestrator
async def parent(ctx: OrchestrationContext, name: str) -> str:
    child = ctx.call_sub_orchestrator(patient, name, instance_id=f"{name} child")
    ctx.send_event(f"{name} child", "go", "x")
    return await child


@app.orchestrator
async def doomed(ctx: OrchestrationContext) -> None:
    raise LookupError("of course")


async def scraped(http: httpx.AsyncClient) -> dict[tuple[str, ...], float]:
    """Return samples by name and labels, `host_id` left out."""
    answer = await http.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        (
            sample.name,
            *(v for k, v in sorted(sample.labels.items()) if k != "host_id"),
        ): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


@in_loop
async def test_everything_is_counted_once() -> None:
    attempts.clear()
    async with Runtime(app, partitions=4) as runtime:
        client = runtime.client
        done = [await client.start("parent", f"p{number}") for number in range(3)]
        failed = await client.start("doomed")
        await asyncio.gather(*(each.result() for each in done))
        with pytest.raises(OrchestrationFailed):
            await failed.result()
        transport = httpx.ASGITransport(runtime.asgi())
        async with httpx.AsyncClient(transport=transport, base_url="http://host") as http:
            found = await scraped(http)
    assert found["orchestrations_started_total", "parent"] == 3
    assert found["orchestrations_started_total", "patient"] == 3
    assert found["orchestrations_completed_total", "patient", "Completed"] == 3
    assert found["orchestrations_completed_total", "doomed", "Failed"] == 1
    assert found["orchestrations_failed_total", "LookupError", "doomed"] == 1
    assert found["orchestrations_duration_seconds_count", "parent", "Completed"] == 3
    assert found["functions_calls_total", "unsteady", "Failed"] == 3
    assert found["functions_calls_total", "unsteady", "Completed"] == 3
    assert found["functions_failures_total", "ConnectionError", "unsteady"] == 3
    assert found["functions_duration_seconds_count", "unsteady", "Completed"] == 3
    assert found["events_raised_total",] == found["events_delivered_total",] == 3
    assert found["timers_created_total",] == 3
    assert found["timers_fired_total",] == 3  # those of second attempts are not the code's
    assert found["orchestrations_active",] == 0
    assert found["lease_active_count",] == 4
    assert found["state_save_duration_seconds_count", "memory"] > 0
    assert not any("child" in label for key in found for label in key[1:])


@in_loop
async def test_what_is_open_is_counted_in_the_store_and_not_at_every_scrape() -> None:
    class Caller:
        asked = 0

        async def ask(self, question: object) -> bytes:
            if type(question).__name__ == "Metrics":
                return b"{}"
            self.asked += 1
            return b'{"Running": 2, "Pending": 1, "Suspended": 4, "Failed": 8, "Completed": 16}'

    caller, times = Caller(), iter((0.0, COUNT_S - 0.01, COUNT_S))
    api = MetricsApi(caller, "a", lambda: next(times))  # type: ignore[arg-type]
    bodies = [bytes((await api.metrics(None)).body) for _ in range(3)]  # type: ignore[arg-type]
    assert all(b"\norchestrations_active 7.0\n" in body for body in bodies)
    assert caller.asked == 2


@pytest.mark.parametrize("trouble", [StoreUnavailable("away"), None])
def test_a_scrape_does_not_wait_for_what_nobody_can_count(trouble: ShardrtError | None):
    class Caller:
        async def ask(self, question: object) -> bytes:
            if type(question).__name__ == "Metrics":
                return b"{}"
            if trouble is not None:
                raise trouble
            return await asyncio.Future()  # asked of a shard that is frozen

    async def main() -> str:
        api = MetricsApi(Caller(), "a")  # type: ignore[arg-type]
        return bytes((await api.metrics(None)).body).decode()  # type: ignore[arg-type]

    text = run_virtual(main())
    assert "\nshardrt_child_restarts_total" in text or "\nevents_raised_total" in text
    assert "orchestrations_active" not in text


def test_buckets_are_those_that_dashboards_expect():
    assert CATALOGUE["orchestrations_duration_seconds"].bounds == (
        0.1,
        0.5,
        1.0,
        2.5,
        5.0,
        10.0,
        30.0,
    )
    meter = Meter("memory")
    for seconds in (0.05, 0.1, 0.2, 100):
        meter.attempted("a", None, seconds)
    ((labels, sample),) = meter.samples({})["functions_duration_seconds"]
    assert labels == ("a", "Completed")
    assert sample.buckets == [2, 1, 0, 0, 0, 0, 0, 1]
    assert abs(sample.value - 100.35) < 1e-9


def test_the_number_of_labels_is_bounded():
    meter = Meter("memory")
    for number in range(LABELS_MAX + 10):
        meter.attempted(f"a{number}", None, 0.0)
    calls = dict(meter.samples({})["functions_calls"])
    assert len(calls) == LABELS_MAX + 1
    assert calls["other", "other"].value == 10


def test_processes_are_added_up():
    a, b = ("a", "Completed"), ("b", "Completed")
    one: Samples = {"calls": [(a, Sample(1.0))], "seconds": [((), Sample(1.0, [1, 2]))]}
    two: Samples = {"calls": [(b, Sample(2.0))], "seconds": [((), Sample(2.0, [3, 4]))]}
    total = add_up([one, two, one])
    assert dict(total["calls"]) == {a: Sample(2.0), b: Sample(2.0)}
    assert dict(total["seconds"]) == {(): Sample(4.0, [5, 8])}
