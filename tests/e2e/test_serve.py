"""A real host from outside: its command line, Ctrl-C, and the death of its processes."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from shardrt import Client, StartRequest
from shardrt.samples.hello import CITIES
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.serving import Served

pytestmark = [pytest.mark.proc, pytest.mark.slow]

GREETINGS = [f"Hello {city}!" for city in CITIES]
PIANO = """{
    "id": "7", "customer": "Ada", "card": "4556-1111", "country": "Norway",
    "lines": [{"sku": "piano", "quantity": 1, "price": "2450.00"}]
}"""
INSTANCES = 50


def test_an_order_goes_on_after_the_host_was_stopped_and_started(host: Served) -> None:
    host.start()
    done = host.cli("start", "orders", "--id", "order-7", "--input", PIANO)
    assert done.returncode == 0, done.stderr
    wait_until(lambda: host.ask("get", "order-7")["customStatus"] == "waiting for approval")
    wait_until(lambda: ids(host.ask("list", "--name", "orders")) == ["order-7"])

    assert host.interrupt() == 0
    host.start()

    assert host.ask("get", "order-7")["runtimeStatus"] == "Running"
    raised = host.cli("raise-event", "order-7", "approval", "--data", "true")
    assert raised.returncode == 0, raised.stderr
    outcome = host.ask("wait", "order-7")["output"]
    assert (outcome["result"], outcome["detail"]) == ("shipped", "track-7")
    assert host.interrupt() == 0


def ids(listed: list[dict[str, Any]]) -> list[str]:
    return [each["instanceId"] for each in listed]


def test_start_can_wait_for_the_result(host: Served) -> None:
    host.start()
    assert host.ask("start", "hello", "--wait")["output"] == GREETINGS
    assert host.interrupt() == 0


def test_instances_outlive_the_shard_that_runs_them(host: Served) -> None:
    host.start()
    outputs = asyncio.run(run_and_kill(host, lambda: host.children("shard")[0]))
    assert outputs == [5] * INSTANCES
    assert host.interrupt() == 0


def test_clients_outlive_the_gateway_that_serves_them(host: Served) -> None:
    host.start()
    outputs = asyncio.run(run_and_kill(host, lambda: host.children("gateway")[0]))
    assert outputs == [5] * INSTANCES


async def run_and_kill(host: Served, victim: Callable[[], int]) -> list[int]:
    """Start instances that take a second, kill a process, and return what they counted."""
    client = await Client.connect(host.url)
    try:
        watch = {"checks": 5, "interval_s": 0.2}
        handles = await client.start_many([StartRequest("monitor", watch)] * INSTANCES)
        os.kill(victim(), signal.SIGKILL)
        results = await asyncio.gather(*(handle.result() for handle in handles))
        return [result["done"] for result in results]
    finally:
        await client.close()


def test_nothing_is_lost_when_the_whole_host_is_killed(host: Served) -> None:
    host.start()
    assert host.cli("start", "monitor", "--id", "m", "--input", '{"checks": 2}').returncode == 0
    host.kill()
    host.start()
    assert host.ask("get", "m")["runtimeStatus"] == "Running"


def test_one_scrape_has_the_sums_of_all_processes(host: Served) -> None:
    host.start()
    for number in range(8):
        assert host.ask("start", "hello", "--id", f"h{number}", "--wait")["output"] == GREETINGS
    expected = {
        'orchestrations_started_total{host_id="x",orchestrator_name="hello"} 8.0',
        'functions_calls_total{function_name="SayHello",host_id="x",status="Completed"} 40.0',
        'lease_active_count{host_id="x"} 32.0',
        "orchestrations_active 0.0",
    }

    def is_told() -> bool:
        text = httpx.get(f"{host.url}/metrics").text
        return expected <= set(re.sub(r'host_id="[^"]+"', 'host_id="x"', text).splitlines())

    wait_until(is_told)  # children tell their supervisor now and then
    assert host.interrupt() == 0
