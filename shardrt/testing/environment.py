"""`Environment`: an app served in memory, in virtual time that skips all waiting.

A real hub (`testing.hub`) and the ordinary `Client`. When nothing is under way, time jumps to the
next event that somebody waits for: a durable timer, a retry, a sleep of an activity or of the
test itself. What the hub does by the way, such as looking after old sessions every second, is
told apart by a context variable and does not hold time up.
"""

from __future__ import annotations

import asyncio
from contextvars import ContextVar, copy_context
from typing import TYPE_CHECKING, Any, Self

from shardrt import __version__
from shardrt.config import Settings
from shardrt.errors import ShardrtError
from shardrt.testing.door import enter, virtual_now
from shardrt.testing.hub import Hub
from shardrt.testing.stand_ins import StandInApp
from shardrt.testing.virtual import START_US, Deadlock, VirtualLoop
from shardrt.tracing.providing import make_tracer

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator, Mapping
    from datetime import datetime, timedelta

    from opentelemetry.sdk.trace import TracerProvider

    from shardrt.client.client import Client
    from shardrt.orchestration.app import App

EVER_S = 1e12
SETTLE_S = 0.1
"""What `advance` adds for computing: a timer is set a little after its orchestration started."""
ATTEMPTS = ("ActivityPool._in_loop", "Runners._run")
"""Tasks that run them."""
_is_housekeeping = ContextVar("is_housekeeping", default=False)


class Environment:
    """Serves an app to a test: ``async with Environment(app) as env: …``, in `run_virtual`.

    Every activity runs in the event loop: a plain function holds everything up, and time, until
    it returns. Code under virtual time must not do real I/O: replace such activities by `stub`.

    Args:
        app: what to serve. It is not changed.
        stubs: activities to replace from the beginning; see `stub`.
        seed: of all chance in here: jitter of retries, ids.
        settings: more settings by ``section.key``, as in a configuration file.
        tracer_provider: OpenTelemetry's, to trace with.
    """

    def __init__(
        self,
        app: App,
        *,
        stubs: Mapping[str, Callable[..., Any]] | None = None,
        seed: int = 0,
        settings: Settings | None = None,
        tracer_provider: TracerProvider | None = None,
    ) -> None:
        self._app = StandInApp(app)
        for name, replacement in (stubs or {}).items():
            self._app.stub(name, replacement)
        settings = settings or Settings()
        self.hub = self._make_hub(self._app, seed, settings)
        self.hub.tracer = make_tracer(settings.tracing, __version__, tracer_provider)
        """For those who want to look behind the scenes."""
        self._client: Client | None = None
        self._is_asking: Callable[[], bool] = lambda: False

    def _make_hub(self, app: App, seed: int, settings: Settings) -> Hub:
        return Hub(
            app, seed=seed, shards=1, settings=settings, latency_s=(0.0, 0.0), lease_s=EVER_S
        )

    async def __aenter__(self) -> Self:
        """Serve.

        Raises:
            ShardrtError: this is not virtual time.
        """
        loop = asyncio.get_running_loop()
        if not isinstance(loop, VirtualLoop):
            raise ShardrtError("use an Environment in virtual time: run_virtual(test())")
        mark = _is_housekeeping.set(True)
        try:
            loop.set_task_factory(_task)
            await self.hub.__aenter__()
            self._client, self._is_asking = await enter(self.hub)
        finally:
            _is_housekeeping.reset(mark)
        await self._served()
        loop.next_event = lambda: self._next_event(loop)
        return self

    async def __aexit__(self, *_: object) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop), "entered in virtual time"
        loop.next_event = lambda: None
        client, self._client = self._client, None
        if client is not None:
            await client.close()
        await self.hub.__aexit__()
        loop.set_task_factory(None)
        if self.hub.broken:
            raise ShardrtError(f"a partition stopped: {self.hub.broken[0]}")

    @property
    def client(self) -> Client:
        """A client of the hub; there is one inside the block."""
        if self._client is None:
            raise ShardrtError("use the environment in `async with`")
        return self._client

    @property
    def now(self) -> datetime:
        """The virtual time, in UTC."""
        return virtual_now()

    def stub(self, name: str, replacement: Callable[..., Any] | None) -> None:
        """Call this instead of an activity from the next attempt on; None: the real one again.

        Args:
            name: of the activity.
            replacement: `def` or `async def`; it may take an `ActivityContext` and the input,
                which comes as the type of its own annotation, or else of the activity's. A mock
                is called with the input.

        Raises:
            ActivityNotRegistered: the app has none of that name.
            ConfigInvalid: the function has more parameters.
        """
        self._app.stub(name, replacement)

    async def advance(self, by: timedelta) -> None:
        """Let time pass, and everything happen that is due meanwhile.

        It takes a tenth of a second more, for what orchestrations compute before they wait.
        """
        await asyncio.sleep(by.total_seconds() + SETTLE_S)
        await self.settle()

    async def settle(self) -> None:
        """Wait until all that is left is waiting: for time, for an event, for an activity."""
        while self._is_busy():  # noqa: ASYNC110 - in virtual time
            await asyncio.sleep(0.001)

    async def crash(self) -> None:
        """Kill the shards without a word; return when others have taken over."""
        for member in list(self.hub.members):
            self.hub.crash(member)
        await self._served()

    # -- time ----------------------------------------------------------------------------------

    async def _served(self) -> None:
        while not all(map(self.hub.host_of, range(self.hub.partitions))):  # noqa: ASYNC110
            await asyncio.sleep(0.001)

    def _is_busy(self) -> bool:
        return self._is_asking() or not self.hub.is_waiting

    def _next_event(self, loop: VirtualLoop) -> float | None:
        if self._is_busy():
            return None
        events = [
            timer.when() for timer in loop.timers if not timer.cancelled() and not _marked(timer)
        ]
        if (due := self.hub.next_due) is not None:
            events.append((due - START_US) / 1e6)
        if not events:
            raise Deadlock(f"nothing will ever happen any more; {self.hub.waiting}")
        # What is due already needs another timer, to notice it.
        return when if (when := min(events)) > loop.time() else None


def _marked(timer: asyncio.TimerHandle) -> bool:
    callback: Any = timer._callback  # type: ignore[attr-defined]  # noqa: SLF001
    if getattr(callback, "__qualname__", "") == "Shard._ring":
        return True  # `next_due` knows better
    context: Any = timer._context  # type: ignore[attr-defined]  # noqa: SLF001
    return bool(context.get(_is_housekeeping, False))


def _task(
    loop: asyncio.AbstractEventLoop,
    main: Coroutine[Any, Any, Any] | Generator[Any, None, Any],
    **options: Any,
) -> asyncio.Task[Any]:
    """Make a task; attempts of activities are what somebody waits for."""
    if getattr(main, "__qualname__", "") in ATTEMPTS:
        options["context"] = context = options.get("context") or copy_context()
        context.run(_is_housekeeping.set, False)
    return asyncio.Task(main, loop=loop, **options)
