"""Middleware that spares an activity which keeps failing, and whoever it calls.

It decides about attempts on the host, at the time; what it led to is recorded like the outcome of
any attempt, so a replay neither asks it nor needs what it knew. What it knows is of one process
and is forgotten with it: each shard finds out by itself.
"""

from __future__ import annotations

import asyncio
import logging
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shardrt.errors import ActivityFailed, CircuitOpen, ConfigInvalid
from shardrt.orchestration.retry import microseconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shardrt.orchestration.middleware import CallNext, ExecutionInfo
    from shardrt.orchestration.retry import Duration

logger = logging.getLogger(__name__)

SUCCESS = ""
"""No reason to count an attempt as a failure."""


class CircuitBreaker:
    """Execution middleware: ``app.execution_middleware(CircuitBreaker("charge", failures=5))``.

    When so many attempts of an activity have failed in a row, its circuit opens: attempts fail at
    once as `CircuitOpen`, without running, and are tried again as the retry policy says. After
    `open_for` one is let through. Its success closes the circuit, its failure opens it for as
    long again.

    Args:
        activities: names; each one has a circuit of its own, in each shard.
        failures: in a row, which open it.
        open_for: seconds or timedelta.
        slow_after: an attempt that takes longer than these seconds (or timedelta) has failed as
            far as this is concerned, at that moment and however it ends. Give it for code in
            threads and processes: what becomes of it after its time limit is not seen. A time
            limit of an `async def` counts by itself.
        ignore: exceptions, or names of their classes, that count neither way, such as that of an
            input which nobody could process.

    Raises:
        ConfigInvalid: an argument makes no sense.
    """

    def __init__(
        self,
        *activities: str,
        failures: int = 5,
        open_for: Duration = 30.0,
        slow_after: Duration | None = None,
        ignore: Sequence[str | type[BaseException]] = (),
    ) -> None:
        open_s = microseconds(open_for) / 1e6
        slow_s = math.inf if slow_after is None else microseconds(slow_after) / 1e6
        rules = [
            (bool(activities), "name an activity"),
            (all(isinstance(each, str) for each in activities), "activities are given by name"),
            (failures >= 1, "failures must be at least 1"),
            (open_s > 0, "open_for must be positive"),
            (slow_s > 0, "slow_after must be positive"),
            (not isinstance(ignore, str), "ignore must be a list"),
        ]
        if problems := [f"CircuitBreaker: {text}" for holds, text in rules if not holds]:
            raise ConfigInvalid(problems)
        self._slow_s = slow_s
        self._ignore = {each if isinstance(each, str) else each.__name__ for each in ignore}
        self._circuits = {name: _Circuit(name, failures, open_s) for name in activities}

    def is_open(self, activity: str) -> bool:
        """Whether attempts of this activity fail at once, but perhaps for one that is let through.

        Raises:
            KeyError: it has no circuit here.
        """
        return self._circuits[activity].opened_s is not None

    async def __call__(self, info: ExecutionInfo, call_next: CallNext) -> Any:
        """Let an attempt through, or fail it; what an app calls."""
        circuit = self._circuits.get(info.name)
        if circuit is None:
            return await call_next()
        loop = asyncio.get_running_loop()
        trial = circuit.admit(loop.time())
        slow: asyncio.TimerHandle | None = None
        if self._slow_s < math.inf:
            text = f"took more than {self._slow_s:g} s"
            slow = loop.call_later(self._slow_s, lambda: circuit.ended(trial, text, loop.time()))
        reason: str | None = SUCCESS
        try:
            return await call_next()
        except BaseException as error:
            reason = self._reason(error, info)
            raise
        finally:
            if slow is not None:
                slow.cancel()
            circuit.ended(trial, reason, loop.time())

    def _reason(self, error: BaseException, info: ExecutionInfo) -> str | None:
        """Return why an attempt counts as failed; None if it does not count at all."""
        if isinstance(error, asyncio.CancelledError):
            given_up = getattr(info.context, "is_cancelled", False)
            return None if given_up else "did not end in time"
        # Of a process, the exception itself stays there. Texts are of the one who called.
        kind = error.error_type if isinstance(error, ActivityFailed) else type(error).__name__
        return None if kind in self._ignore else f"failed as {kind}"


@dataclass(slots=True, eq=False)
class _Trial:
    """An attempt that was let through."""

    has_ended: bool = False


class _Circuit:
    """Of one activity. Times are those of the loop, in seconds."""

    def __init__(self, name: str, failures_max: int, open_s: float) -> None:
        self._name = name
        self._failures_max = failures_max
        self._open_s = open_s
        self._failures = 0
        """In a row; of attempts that began while it was closed."""
        self._reason = SUCCESS
        """Of the last one."""
        self.opened_s: float | None = None
        """Since when it has been open; None: it is closed."""
        self._probe: _Trial | None = None
        """The one that is let through while it is open."""

    def admit(self, now_s: float) -> _Trial:
        """Let an attempt through.

        Raises:
            CircuitOpen: not now.
        """
        trial = _Trial()
        if self.opened_s is not None:
            left_s = self.opened_s + self._open_s - now_s
            if left_s > 0:
                raise CircuitOpen(
                    f"activity {self._name!r} is left alone for another {left_s:.1f} s: "
                    f"the last of many attempts {self._reason}"
                )
            # The next one is let through as much later: this one may hang in its thread for ever.
            self._probe, self.opened_s = trial, now_s
        return trial

    def ended(self, trial: _Trial, reason: str | None, now_s: float) -> None:
        """Take how an attempt ended, the first time that this is said."""
        if trial.has_ended:
            return
        trial.has_ended = True
        is_probe = trial is self._probe
        if is_probe:
            self._probe = None
        if reason is None and is_probe:
            self.opened_s = now_s - self._open_s  # it tells nothing: the next one may
        if reason is None or (self.opened_s is not None and not is_probe):
            return  # it began before the circuit opened
        if reason == SUCCESS:
            self._failures = 0
            if is_probe:
                self.opened_s = None
                logger.info("activity=%s succeeds again: its circuit is closed", self._name)
            return
        self._failures += 1
        self._reason = reason
        if is_probe or self._failures >= self._failures_max:
            self.opened_s = now_s
            logger.warning(
                "activity=%s has failed %d times in a row, the last attempt %s: its circuit is "
                "open for %g s",
                self._name,
                self._failures,
                reason,
                self._open_s,
            )
