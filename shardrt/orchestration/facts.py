"""Who an execution is, its time, and its source of randomness: all the same in a replay."""

from __future__ import annotations

import logging
import random
import uuid
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar, overload

from shardrt.orchestration.payload import codec_for

if TYPE_CHECKING:
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
