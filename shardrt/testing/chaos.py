"""Faults on purpose in an app that runs: latency, failures, exhausted resources, cut networks.

This shows whether *orchestrations* bear what their activities and clients meet: it acts on
attempts of activities and on starts, by middleware, where what it does is recorded like any other
outcome. Never inside of an orchestration, where chance would end in a replay that differs. What
the *runtime* must bear (crashes, commits that fail, messages that are lost) is not played here
but by `shardrt.testing.simulate`.

Whether something happens is drawn from a generator that the caller gives: the same seed and the
same order of calls have the same faults.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import threading
import time
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

from shardrt.errors import ConfigInvalid

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from shardrt.orchestration.app import App
    from shardrt.orchestration.middleware import CallNext, ExecutionInfo, SchedulingInfo
    from shardrt.orchestration.retry import Duration

logger = logging.getLogger(__name__)

MEMORY_BYTES = 64 * 1024 * 1024
"""So much does a `BasicChaosAgent` hold unless told otherwise."""
PRODUCTION = ("prod", "live")
"""What the name of an environment begins with in which there is never chaos."""


class ChaosInjected(Exception):
    """A failure on purpose."""


class ResourceType(StrEnum):
    """What can run short."""

    MEMORY = "memory"
    CPU = "cpu"
    DISK_IO = "disk_io"
    NETWORK_BANDWIDTH = "network_bandwidth"
    DATABASE_CONNECTIONS = "database_connections"


class ChaosAgent(Protocol):
    """Who makes faults. Durations are seconds or timedelta, probabilities from 0 to 1."""

    async def inject_latency(
        self, operation: str, delay: Duration, probability: float = 1.0
    ) -> None:
        """Wait for so long, with that probability."""

    async def inject_failure(
        self, operation: str, error: Exception, probability: float = 1.0
    ) -> None:
        """Raise `error`, with that probability."""

    async def inject_resource_exhaustion(self, resource: ResourceType, duration: Duration) -> None:
        """Use a resource up, and let go of it after that time or when cancelled."""

    async def inject_network_partition(self, duration: Duration) -> None:
        """Cut everything off that passes this agent, for that time or until cancelled."""


class BasicChaosAgent:
    """Does as it is told, anywhere: wrap it in a `SafeChaosAgent`, as `use_chaos` does.

    Args:
        rng: of all chance; one draw for each latency and each failure.
        sleep: how to wait, in seconds; another one for tests.
        memory_bytes: how much an exhaustion of memory holds.
    """

    def __init__(
        self,
        rng: random.Random | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        *,
        memory_bytes: int = MEMORY_BYTES,
    ) -> None:
        self._rng = rng or random.Random()  # noqa: S311 - no secret
        self._sleep = sleep
        self._memory_bytes = memory_bytes
        self._cuts = 0
        self.injected: Counter[str] = Counter()
        """How often there was a latency, failure, partition, or a resource was exhausted."""

    @property
    def is_partitioned(self) -> bool:
        """Whether the network is cut at the moment."""
        return self._cuts > 0

    async def inject_latency(
        self, operation: str, delay: Duration, probability: float = 1.0
    ) -> None:
        """Wait for so long, with that probability.

        Raises:
            ConnectionError: the network is cut; also `inject_failure` raises it then.
            ConfigInvalid: there is no such probability or duration.
        """
        seconds = _seconds(delay)
        if self._draw(operation, probability):
            self.injected["latency"] += 1
            await self._sleep(seconds)

    async def inject_failure(
        self, operation: str, error: Exception, probability: float = 1.0
    ) -> None:
        """Raise `error`, with that probability."""
        if self._draw(operation, probability):
            self.injected["failure"] += 1
            raise error

    async def inject_resource_exhaustion(self, resource: ResourceType, duration: Duration) -> None:
        """Use a resource up, and let go of it after that time or when cancelled.

        Memory: holds `memory_bytes`. CPU: a thread computes as fast as it can.

        Raises:
            ConfigInvalid: this resource cannot be exhausted from within a process.
        """
        seconds = _seconds(duration)
        if resource is ResourceType.MEMORY:
            self.injected["memory"] += 1
            held = bytearray(self._memory_bytes)  # filled with zeros, and so really in use
            await self._sleep(seconds)
            del held
        elif resource is ResourceType.CPU:
            self.injected["cpu"] += 1
            await self._burn(seconds)
        else:
            raise ConfigInvalid(
                f"{resource} cannot be exhausted from within a process; `simulate` plays stores "
                "and networks that are slow or fail"
            )

    async def inject_network_partition(self, duration: Duration) -> None:
        """Cut everything off that passes this agent, for that time or until cancelled."""
        seconds = _seconds(duration)
        self.injected["partition"] += 1
        self._cuts += 1
        try:
            await self._sleep(seconds)
        finally:
            self._cuts -= 1

    def _draw(self, operation: str, probability: float) -> bool:
        if not _is_probability(probability):
            raise ConfigInvalid(f"a probability is from 0 to 1, not {probability!r}")
        drawn = self._rng.random() < probability
        if self._cuts:
            raise ConnectionError(f"chaos: {operation} is cut off")
        return drawn

    async def _burn(self, seconds: float) -> None:
        stop = threading.Event()
        until_s = time.monotonic() + seconds

        def burn() -> None:
            while not stop.is_set() and time.monotonic() < until_s:
                pass

        thread = threading.Thread(target=burn, name="shardrt-chaos", daemon=True)
        thread.start()
        try:
            await self._sleep(seconds)
        finally:
            stop.set()
            thread.join()  # at once: it looks all the time


@dataclass(frozen=True, kw_only=True)
class ChaosConfiguration:
    """Whether there is chaos, and how much. Durations are seconds or timedelta."""

    enabled: bool = False
    environment: str = "development"
    """Where the app runs. In production, and if this is empty, there is never chaos."""
    default_latency_probability: float = 0.3
    default_failure_probability: float = 0.1
    default_latency_delay: Duration = 0.2
    resource_exhaustion_enabled: bool = False
    network_partition_enabled: bool = False
    max_resource_exhaustion_duration: Duration = 10.0
    """Also of partitions; what asks for more gets this."""

    @property
    def is_production(self) -> bool:
        """Whether this is a place where people depend on what runs."""
        name = self.environment.strip().casefold()
        return not name or name.startswith(PRODUCTION)

    def problems(self) -> list[str]:
        """Return what makes no sense."""
        found = [
            f"{name} is from 0 to 1, not {value!r}"
            for name in ("default_latency_probability", "default_failure_probability")
            if not _is_probability(value := getattr(self, name))
        ]
        for name in ("default_latency_delay", "max_resource_exhaustion_duration"):
            try:
                _seconds(getattr(self, name))
            except ConfigInvalid as error:
                found.append(f"{name}: {error}")
        return found

    def is_valid_and_safe(self) -> bool:
        """Whether chaos could be enabled: the numbers make sense, and this is not production."""
        return not self.is_production and not self.problems()


class SafeChaosAgent:
    """Hands on to another agent what the configuration allows, and does nothing otherwise."""

    def __init__(self, inner: ChaosAgent, configuration: ChaosConfiguration) -> None:
        self._inner = inner
        self._configuration = configuration

    @property
    def is_active(self) -> bool:
        """Whether there is any chaos."""
        return self._configuration.enabled and self._configuration.is_valid_and_safe()

    async def inject_latency(
        self, operation: str, delay: Duration, probability: float = 1.0
    ) -> None:
        if self.is_active:
            await self._inner.inject_latency(operation, delay, probability)

    async def inject_failure(
        self, operation: str, error: Exception, probability: float = 1.0
    ) -> None:
        if self.is_active:
            await self._inner.inject_failure(operation, error, probability)

    async def inject_resource_exhaustion(self, resource: ResourceType, duration: Duration) -> None:
        if self.is_active and self._configuration.resource_exhaustion_enabled:
            await self._inner.inject_resource_exhaustion(resource, self._bounded(duration))

    async def inject_network_partition(self, duration: Duration) -> None:
        if self.is_active and self._configuration.network_partition_enabled:
            await self._inner.inject_network_partition(self._bounded(duration))

    def _bounded(self, duration: Duration) -> float:
        longest = self._configuration.max_resource_exhaustion_duration
        return min(_seconds(duration), _seconds(longest))


def use_chaos(app: App, agent: ChaosAgent, configuration: ChaosConfiguration) -> bool:
    """Have the agent meddle with each attempt of an activity and each start by a client.

    Before an attempt there may be a latency, then a failure (`ChaosInjected`, or
    `ConnectionError` while the network is cut), which is an outcome like any other. A start
    may be refused with `SchedulingVetoed`: chaos prevented scheduling. Call it before the app is
    served.

    Args:
        app: gets middleware, inside of what it has already.
        agent: is only asked if the configuration is enabled and safe.
        configuration: how much.

    Returns:
        Whether there will be chaos; if not, nothing was added to the app.

    Raises:
        ConfigInvalid: the configuration is enabled, and makes no sense.
    """
    if configuration.enabled and (problems := configuration.problems()):
        raise ConfigInvalid([f"chaos: {each}" for each in problems])
    safe = SafeChaosAgent(agent, configuration)
    if not safe.is_active:
        if configuration.enabled:
            logger.warning("no chaos: the environment is %r", configuration.environment)
        return False
    delay = configuration.default_latency_delay
    delaying = configuration.default_latency_probability
    failing = configuration.default_failure_probability

    async def meddle(info: ExecutionInfo, call_next: CallNext) -> Any:
        operation = f"activity {info.name}"
        await safe.inject_latency(operation, delay, delaying)
        await safe.inject_failure(operation, ChaosInjected(f"chaos in {operation}"), failing)
        return await call_next()

    async def hinder(info: SchedulingInfo, call_next: CallNext) -> None:
        error = ChaosInjected(f"chaos prevented scheduling of {info.name}")
        await safe.inject_failure(f"start of {info.name}", error, failing)
        await call_next()

    app.execution_middleware(meddle)
    app.scheduling_middleware(hinder)
    return True


def _is_probability(value: object) -> bool:
    return isinstance(value, (int, float)) and 0 <= value <= 1


def _seconds(duration: Duration) -> float:
    seconds = duration.total_seconds() if isinstance(duration, timedelta) else duration
    if not isinstance(seconds, (int, float)) or not 0 <= seconds < math.inf:
        raise ConfigInvalid(f"a duration is at least 0 seconds, not {duration!r}")
    return seconds
