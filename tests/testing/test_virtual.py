from __future__ import annotations

import asyncio

import pytest

from shardrt.testing.virtual import START_US, Deadlock, VirtualClock, pass_time, run_virtual


def test_time_jumps_to_the_next_timer():
    async def main() -> list[float]:
        loop = asyncio.get_running_loop()
        times = []
        for seconds in (0.1, 86_400 * 400, 0.5):
            await pass_time(seconds)
            times.append(loop.time())
        return times

    assert run_virtual(main()) == [0.1, pytest.approx(34560000.1), pytest.approx(34560000.6)]


def test_timers_fire_in_order():
    async def main() -> list[int]:
        fired: list[int] = []

        async def fire(number: int, after_s: float) -> None:
            await pass_time(after_s)
            fired.append(number)

        await asyncio.gather(fire(1, 3), fire(2, 1), fire(3, 2), fire(4, 1))
        return fired

    assert run_virtual(main()) == [2, 4, 3, 1]


def test_waiting_for_nothing_is_an_error_that_says_so():
    async def main() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(Deadlock, match=r"no timer is set at 0\.0"):
        run_virtual(main())


def test_functions_for_threads_run_in_the_loop():
    async def main() -> tuple[int, str]:
        loop = asyncio.get_running_loop()
        number = await loop.run_in_executor(None, lambda: 7)
        try:
            await asyncio.to_thread(int, "x")
        except ValueError as error:
            return number, type(error).__name__
        return number, ""

    assert run_virtual(main()) == (7, "ValueError")


def test_a_clock_may_be_wrong_but_never_goes_back():
    async def main() -> list[int]:
        clock = VirtualClock(skew_us=500)
        seen = [clock.now()]
        await pass_time(1)
        seen.append(clock.now())
        clock.skew_us = -5_000_000
        seen.append(clock.now())
        await pass_time(10)
        seen.append(clock.now())
        return [each - START_US for each in seen]

    assert run_virtual(main()) == [500, 1_000_500, 1_000_500, 6_000_000]


def test_looking_at_the_clock_takes_time():
    async def main() -> bool:
        clock = VirtualClock()
        until_s = clock.monotonic_s() + 0.01
        while clock.monotonic_s() < until_s:
            pass
        return True

    assert run_virtual(main())
