"""Processes that are not: each has a context of its own, and can be stopped, or killed.

What a process does is run by the one event loop in copies of that process's context, so the
loop can tell whose a callback is. A stopped process does nothing, and remembers what is due and
what arrives; when it goes on, all of that happens at once, as after SIGCONT. A killed one never
does anything again: no `finally:` runs, as with SIGKILL.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import heapq
from contextvars import Context, ContextVar, copy_context
from typing import TYPE_CHECKING, Any, TypeVar

from shardrt.testing.virtual import Jump, VirtualLoop

if TYPE_CHECKING:
    import selectors
    from collections.abc import Callable, Coroutine

T = TypeVar("T")

_running: ContextVar[Process | None] = ContextVar("running", default=None)


BUSY_TURNS_MAX = 50_000
"""More turns of the loop than this without waiting for anything are a bug."""


class Livelock(AssertionError):
    """Somebody works for ever without getting anywhere."""


class Process:
    """One process, or whatever else can fail alone. Made by `SimLoop.process`."""

    def __init__(self, loop: SimLoop, name: str, place: str) -> None:
        self.name = name
        self.place = place
        """The machine that it runs on: what networks connect."""
        self.is_dead = False
        self.is_stopped = False
        self.on_death: list[Callable[[], None]] = []
        """Called when it is killed, by nobody's process: what others notice."""
        self.parked: list[asyncio.Handle] = []
        self.context = copy_context()
        self.context.run(_running.set, self)
        self.tasks: list[asyncio.Task[Any]] = []
        """Those made by `spawn`; kept, or they would be collected half-way."""
        self._loop = loop

    def spawn(self, main: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine as this process."""
        self.tasks.append(self._loop.create_task(main, context=self.context))

    def at(self, when: float, act: Callable[..., object], *args: Any) -> None:
        """Call something as this process at a time, or once it goes on; never if it is dead."""
        if self.is_dead:
            return
        if self.is_stopped:
            run, arguments = self._run, (act, *args)
            self.parked.append(asyncio.TimerHandle(when, run, arguments, self._loop, self.context))
        else:
            self._loop.call_at(when, self._run, act, *args, context=self.context)

    def _run(self, act: Callable[..., object], *args: Any) -> None:
        if not self.is_dead:
            act(*args)

    def after(self, delay_s: float, act: Callable[..., object], *args: Any) -> None:
        """Call something as this process after a while."""
        self.at(self._loop.time() + delay_s, act, *args)

    def stop(self) -> None:
        """Do nothing from the end of this turn of the loop on."""
        if not self.is_dead and not self.is_stopped:
            self.is_stopped = True
            self._loop.take_out.append(self)

    def go_on(self) -> None:
        """Do what was due meanwhile, in order, and go on."""
        if self.is_stopped and not self.is_dead:
            self.is_stopped = False
            self._loop.put_back.append(self)

    def kill(self) -> None:
        """End it where it is."""
        if not self.is_dead:
            self.is_dead = True
            self._loop.take_out.append(self)
            for tell in self.on_death:
                self._loop.later(0.0, tell)


class _Turn(Jump):
    """Sees to stopped and killed processes between two turns of the loop; looks at no socket."""

    loop: SimLoop
    turns = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout > 0:
            self.jump()
            self.turns = 0
        elif (turns := self.turns + 1) < BUSY_TURNS_MAX:
            self.turns = turns
        else:
            self.turns = 0
            raise Livelock(f"busy for ever at {self.loop.time():.6f} s")
        if self.loop.take_out or self.loop.put_back:
            self.loop.sort_out()
        return []


class SimLoop(VirtualLoop):
    """An event loop in virtual time for many processes."""

    def __init__(self) -> None:
        self.take_out: list[Process] = []
        self.put_back: list[Process] = []
        self.processes: list[Process] = []
        self.is_over = False
        """Nothing happens any more outside of processes."""
        self.world = Context()
        """The context of what is nobody's process."""
        super().__init__(_Turn)
        selector: Any = self._selector  # type: ignore[attr-defined]
        selector.loop = self

    def process(self, name: str, place: str) -> Process:
        """Start a process."""
        process = self.world.run(Process, self, name, place)
        self.processes.append(process)
        return process

    def later(self, delay_s: float, act: Callable[..., object], *args: Any) -> None:
        """Call something after a while, as nobody's process."""
        self.call_later(delay_s, self._run, act, *args, context=self.world)

    def _run(self, act: Callable[..., object], *args: Any) -> None:
        if not self.is_over:
            act(*args)

    def sort_out(self) -> None:
        """Take out what belongs to processes that stand still now; put back what does again.

        Only between two turns: within one, the loop counts on what it has seen.
        """
        taken, self.take_out = self.take_out, []
        returning, self.put_back = self.put_back, []
        if taken:
            self._extract({process for process in taken if process.is_stopped or process.is_dead})
        for process in returning:
            if process.is_stopped or process.is_dead:
                continue
            parked, process.parked = process.parked, []
            for handle in parked:
                if isinstance(handle, asyncio.TimerHandle):
                    heapq.heappush(self.timers, handle)
                else:
                    self._ready.append(handle)  # type: ignore[attr-defined]

    def _extract(self, still: set[Process]) -> None:
        ready: Any = self._ready  # type: ignore[attr-defined]
        timers: Any = self.timers
        for handles in (ready, timers):
            kept: list[asyncio.Handle] = []
            for handle in handles:
                process = handle._context.get(_running)  # noqa: SLF001 - whose it is
                if process not in still:
                    kept.append(handle)
                else:
                    process.parked.append(handle)
            if len(kept) < len(handles):
                handles.clear()
                handles.extend(kept)
                if handles is timers:
                    heapq.heapify(timers)


def current() -> Process | None:
    """Return the process that runs now."""
    return _running.get()


def run_cluster(main: Callable[[SimLoop], Coroutine[Any, Any, T]]) -> T:
    """Run a simulation to its end in a loop of its own, then drop all that it left behind."""
    collects = gc.isenabled()
    gc.disable()  # a run is short, and what it leaves goes at once
    loop = SimLoop()
    asyncio.set_event_loop(loop)
    try:
        return loop.run_until_complete(main(loop))
    finally:
        with contextlib.suppress(Livelock):  # which has been raised before
            _drop(loop)
        asyncio.set_event_loop(None)
        loop.close()
        if collects:
            gc.enable()


def _drop(loop: SimLoop) -> None:
    """Cancel what is left; nobody is there any more to see what comes of it."""
    loop.set_exception_handler(lambda *_: None)
    loop.is_over = True
    for process in loop.processes:
        process.is_dead = True
    loop.sort_out()
    ready: Any = loop._ready  # type: ignore[attr-defined]  # noqa: SLF001
    for process in loop.processes:
        # Steps of tasks, which cannot end without.
        ready += [each for each in process.parked if not isinstance(each, asyncio.TimerHandle)]
        process.parked.clear()
    for _ in range(5):  # some wait for one another, and then have to be told again
        tasks = asyncio.all_tasks(loop)
        if not tasks:
            break
        for task in tasks:
            task.cancel()
        loop.run_until_complete(asyncio.wait(tasks, timeout=10.0))
    for task in asyncio.all_tasks(loop):
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # noqa: SLF001
