"""Virtual time: an event loop that never waits, and clocks that run on it.

When nothing is ready, time jumps to the next timer. A run takes as long as its computing, and
two runs of the same code see the same times. Code under such a loop must do no I/O; functions
sent to threads run in the loop instead, so that they are in order too.
"""

from __future__ import annotations

import asyncio
import math
import selectors
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

T = TypeVar("T")

START_US = 1_700_000_000_000_000
"""Hub time at which virtual time begins: some day in 2023."""


LOOK_S = 1e-5
"""What a look at a monotonic clock takes: computing has to take some time, or code that works
until its time is up would work for ever."""


class Deadlock(AssertionError):
    """Everybody waits for somebody else: nothing is ready and no timer is set."""


class Jump(selectors.DefaultSelector):
    """Never waits: moves time instead."""

    def __init__(self, jump: Callable[[], None]) -> None:
        super().__init__()
        self.jump = jump

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout > 0:
            self.jump()
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop in virtual time, which starts at 0 s."""

    def __init__(self, selector: type[Jump] = Jump) -> None:
        self._now_s = 0.0
        self.next_event: Callable[[], float | None] = lambda: None
        """Returns a time to jump to, past timers that do not matter; None: to the next timer."""
        super().__init__(selector(self._jump))

    def time(self) -> float:
        return self._now_s

    @property
    def timers(self) -> list[asyncio.TimerHandle]:
        """All that are set, the next one first, and some that were cancelled."""
        return self._scheduled  # type: ignore[attr-defined,no-any-return]

    def spend(self, seconds: float) -> None:
        """Let time pass that something takes to compute."""
        self._now_s += seconds

    def _jump(self) -> None:
        # Exactly to the next timer: sums of delays would be off by rounding.
        if not self.timers:
            waiting = sorted(task.get_name() for task in asyncio.all_tasks(self))
            raise Deadlock(f"no timer is set at {self._now_s:.6f} s, waiting: {waiting}")
        wanted = self.next_event()
        when = self.timers[0].when() if wanted is None else wanted
        if when + self._clock_resolution == when:  # type: ignore[attr-defined]
            when = math.nextafter(when, math.inf)  # asyncio runs what is due before now, not at now
        self._now_s = max(self._now_s, when)

    def run_in_executor(  # type: ignore[override] # without TypeVarTuple
        self, executor: object, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        """Run a function meant for a thread in the loop, at its next turn."""
        del executor
        future: asyncio.Future[T] = self.create_future()
        self.call_soon(_call, future, func, args)
        return future


def _call(future: asyncio.Future[T], func: Callable[..., T], args: tuple[Any, ...]) -> None:
    if future.cancelled():
        return
    try:
        future.set_result(func(*args))
    except Exception as error:  # noqa: BLE001 - it is the caller's
        future.set_exception(error)


def run_virtual(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end in virtual time; its loop is a new one.

    Where a loop runs already, the new one gets a thread, and the old one stands still meanwhile.

    Raises:
        Deadlock: it has no end: nothing could ever happen any more.
    """
    if asyncio._get_running_loop() is None:  # noqa: SLF001 - documented, does not raise
        return _run(main)
    with ThreadPoolExecutor(1, "shardrt-virtual") as threads:
        return threads.submit(_run, main).result()


def _run(main: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)


async def pass_time(seconds: float) -> None:
    """Let virtual time pass."""
    assert isinstance(asyncio.get_running_loop(), VirtualLoop), "this would wait in real time"
    await asyncio.sleep(seconds)


class VirtualClock:
    """A `host.clock.Clock` on the running loop, as right or wrong as a test wants it."""

    def __init__(self, skew_us: int = 0) -> None:
        self.skew_us = skew_us
        """How far `now` is ahead of the true time; may be changed at any time."""
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop), "this clock needs virtual time"
        self._loop = loop
        self._latest = 0

    def now(self) -> int:
        """Return hub time, µs since 1970 UTC; never less than before."""
        self._latest = max(self._latest, true_now_us(self._loop) + self.skew_us)
        return self._latest

    def monotonic_s(self) -> float:
        """Return seconds of the loop's time, which goes on a little by that."""
        self._loop.spend(LOOK_S)
        return self._loop.time()


def true_now_us(loop: asyncio.AbstractEventLoop) -> int:
    """Return the time that a database on this loop would tell, µs since 1970 UTC."""
    return START_US + round(loop.time() * 1_000_000)
