"""Who an execution is, its time, and its source of randomness: all the same in a replay."""

from __future__ import annotations

import logging
import random
import uuid
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar, overload

from shardrt.core.history import PatchMarked
from shardrt.orchestration.payload import codec_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from shardrt.core.history import ExecutionStarted
    from shardrt.orchestration.ledger import Ledger

logger = logging.getLogger("shardrt.orchestrator")

T = TypeVar("T")

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)

_UUIDS = uuid.UUID("6f1c6cf4-5f0d-5a53-9d0c-3d1b7f6f2a11")
"""Namespace of `new_uuid`. Fixed for ever: histories depend on it."""


class ExecutionFacts:
    """What an orchestrator can know without asking anybody."""

    __slots__ = (
        "_execution_id",
        "_instance_id",
        "_ledger",
        "_logger",
        "_random",
        "_started",
        "_uuids",
    )

    def __init__(
        self, *, instance_id: str, execution_id: str, started: ExecutionStarted, ledger: Ledger
    ) -> None:
        self._instance_id = instance_id
        self._execution_id = execution_id
        self._started = started
        self._ledger = ledger
        self._uuids = 0
        self._random: random.Random | None = None
        self._logger: logging.LoggerAdapter[logging.Logger] | None = None

    @property
    def instance_id(self) -> str:
        return self._instance_id

    @property
    def execution_id(self) -> str:
        """Differs after each `continue_as_new`."""
        return self._execution_id

    @property
    def name(self) -> str:
        """Of the orchestrator."""
        return self._started.name

    @property
    def version(self) -> str | None:
        """Of the orchestrator, as fixed at the start."""
        return self._started.version

    @property
    def parent_instance_id(self) -> str | None:
        """Who called this as a sub-orchestration, if anybody."""
        parent = self._started.parent
        return None if parent is None else parent.instance_id

    @property
    def is_replaying(self) -> bool:
        """Whether the code runs again what it has run before."""
        return self._ledger.replaying

    @property
    def current_utc_datetime(self) -> datetime:
        """The time of this turn, aware, in UTC. Stands still while the code runs."""
        return EPOCH + self._ledger.now * MICROSECOND

    @property
    def random(self) -> random.Random:
        """Random numbers that are the same in a replay."""
        if self._random is None:
            self._random = random.Random(self._execution_id)  # noqa: S311
        return self._random

    @property
    def logger(self) -> logging.LoggerAdapter[logging.Logger]:
        """Logs with the ids of this instance; silent while replaying."""
        if self._logger is None:
            facts = {"instance_id": self._instance_id, "execution_id": self._execution_id}
            self._logger = _OrchestratorLogger(logger, facts, self._ledger)
        return self._logger

    def new_uuid(self) -> uuid.UUID:
        """Return a new UUID that is the same in a replay."""
        self._uuids += 1
        return uuid.uuid5(_UUIDS, f"{self._execution_id}:{self._uuids}")

    # -- determinism ---------------------------------------------------------------------------

    def patched(self, name: str) -> bool:
        """Return whether to take the new way at a change of the code that is called `name`.

        True for an execution that comes here for the first time, which is recorded; false for
        one that has passed here with the code from before the change. The answer for a name
        is the same for the whole execution.
        """
        patches = self._patches(name)
        if name not in patches:
            patches[name] = self._mark(PatchMarked(name))
        return patches[name]

    def deprecate_patch(self, name: str) -> None:
        """Say in place of `patched` that there is only the new way, once no old execution is left.

        What is recorded then fits code with and without the patch, so that this call can go
        as soon as no execution is left that was recorded by `patched`.
        """
        patches = self._patches(name)
        if name not in patches:
            self._mark(PatchMarked(name, deprecated=True))
            patches[name] = True

    def _patches(self, name: str) -> dict[str, bool]:
        if not isinstance(name, str):
            raise TypeError(f"the name of a patch is a text, not {name!r}")
        ledger = self._ledger
        if ledger.inert:
            ledger.refuse()
        if ledger.patches is None:
            ledger.patches = {}
        return ledger.patches

    def _mark(self, marker: PatchMarked) -> bool:
        """Record a marker, or in a replay find it; return whether history has it."""
        found = marker if not self._ledger.replaying else self._ledger.marked(marker.name)
        if found is not None:
            self._ledger.emit(found)
        return found is not None

    @contextmanager
    def unguarded(self) -> Iterator[None]:
        """Let the block read clocks, files and so on, without being refused.

        For what does not come back into the code, such as a measurement. Do not await in it.
        """
        ledger = self._ledger
        guard, ledger.guard = ledger.guard, "off"
        try:
            yield
        finally:
            ledger.guard = guard

    @overload
    def get_input(self, type: type[T], /) -> T: ...
    @overload
    def get_input(self, type: Any = Any, /) -> Any: ...
    def get_input(self, type: Any = Any, /) -> Any:  # noqa: A002
        """Return the input as `type`.

        Raises:
            InputInvalid: it does not fit.
        """
        return codec_for(type).decode(self._started.input, f"input of {self.name!r}")


class _OrchestratorLogger(logging.LoggerAdapter[logging.Logger]):
    def __init__(self, target: logging.Logger, facts: dict[str, Any], ledger: Ledger) -> None:
        super().__init__(target, facts)
        self._ledger = ledger

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802
        if self._ledger.replaying or self._ledger.inert:
            return False
        return super().isEnabledFor(level)

    def process(self, msg: Any, kwargs: Any) -> tuple[Any, Any]:
        facts = dict(self.extra or {})
        text = f"{msg} [instance_id={facts['instance_id']}]"
        return text, {**kwargs, "extra": {**facts, **(kwargs.get("extra") or {})}}
