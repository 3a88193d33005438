"""How load is put on: what is in flight, and from when latency counts."""

from __future__ import annotations

import asyncio
import time

import pytest

from shardrt.bench import loops
from shardrt.bench.errors import RunFailed
from shardrt.bench.loops import closed_loop, open_loop

STALL_S = 0.05


class Hub:
    """Counts what is under way."""

    def __init__(self) -> None:
        self.under_way = 0
        self.most = 0
        self.numbers: list[int] = []

    async def run_one(self, number: int) -> None:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        await asyncio.sleep(0)
        self.under_way -= 1
        self.numbers.append(number)


def advance() -> None:
    pass


async def stall_first(number: int) -> None:
    if number == 0:
        until_s = time.perf_counter() + STALL_S
        while time.perf_counter() < until_s:
            pass


def test_a_closed_loop_keeps_so_many_in_flight() -> None:
    hub = Hub()
    timing = asyncio.run(closed_loop(hub.run_one, 20, 3, advance))
    assert (hub.most, sorted(hub.numbers)) == (3, list(range(20)))
    assert (len(timing.latencies), sum(timing.per_second)) == (20, 20)


def test_an_open_loop_starts_each_once() -> None:
    hub = Hub()
    timing = asyncio.run(open_loop(hub.run_one, 20, 10_000.0, advance))
    assert sorted(hub.numbers) == list(range(20))
    assert (len(timing.latencies), sum(timing.per_second)) == (20, 20)
    assert timing.seconds >= 19 / 10_000


def test_an_open_loop_counts_latency_from_when_a_start_was_meant_to_be() -> None:
    timing = asyncio.run(open_loop(stall_first, 10, 1000.0, advance))
    # All others were meant to start during the stall, within its first 10 ms.
    assert timing.latencies.ms(10.0) >= (STALL_S - 0.01) * 1000
    assert timing.starts_late_s >= STALL_S - 0.01


def test_a_closed_loop_counts_latency_from_the_start() -> None:
    timing = asyncio.run(closed_loop(stall_first, 10, 1, advance))
    assert timing.latencies.ms(100.0) >= STALL_S * 1000
    assert timing.latencies.ms(50.0) < STALL_S * 1000


def test_an_open_loop_gives_up_on_a_hub_that_does_not_keep_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loops, "IN_FLIGHT_MAX", 3)

    async def never(_: int) -> None:
        await asyncio.Event().wait()

    with pytest.RaisesGroup(pytest.RaisesExc(RunFailed, match="too many: 4 are in flight")):
        asyncio.run(open_loop(never, 100, 10_000.0, advance))
