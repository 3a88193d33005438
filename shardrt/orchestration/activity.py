"""What an activity knows about its run."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Protocol

from shardrt.core.history import NULL
from shardrt.errors import ConfigInvalid
from shardrt.orchestration import payload

if TYPE_CHECKING:
    from collections.abc import Mapping

    from msgspec import Raw

logger = logging.getLogger("shardrt.activity")


class ActivityControl(Protocol):
    """The pool's side of a running activity. Called from the thread the activity runs in."""

    def heartbeat(self, details: Raw) -> None:
        """Note that the activity is alive and how far it is."""

    def is_cancelled(self) -> bool:
        """Whether nobody waits for the result any more."""


class _NoControl:
    """For activities called by hand, as unit tests do."""

    def heartbeat(self, details: Raw) -> None:
        """Do nothing."""

    def is_cancelled(self) -> bool:
        return False


class ActivityContext:
    """Identity of one attempt of an activity, and its line to the runtime.

    All arguments have defaults, so that tests can make one and call the activity directly.
    """

    __slots__ = (
        "_connection",
        "_control",
        "_details",
        "_logger",
        "attempt",
        "execution_id",
        "host_id",
        "instance_id",
        "name",
        "shard",
        "task_id",
    )

    def __init__(  # noqa: PLR0913
        self,
        *,
        instance_id: str = "",
        execution_id: str = "",
        name: str = "",
        task_id: int = 0,
        attempt: int = 1,
        host_id: str = "",
        shard: int = 0,
        control: ActivityControl | None = None,
        details: Raw = NULL,
        connection: Any = None,
    ) -> None:
        self.instance_id = instance_id
        """Of the orchestration that called."""
        self.execution_id = execution_id
        self.name = name
        self.task_id = task_id
        self.attempt = attempt
        """Counted from 1."""
        self.host_id = host_id
        self.shard = shard
        self._control: ActivityControl = _NoControl() if control is None else control
        self._details = details
        self._connection = connection
        self._logger: logging.LoggerAdapter[logging.Logger] | None = None

    @property
    def idempotency_key(self) -> str:
        """The same for all attempts of this call, and for no other call."""
        return f"{self.instance_id}:{self.execution_id}:{self.task_id}"

    @property
    def logger(self) -> logging.LoggerAdapter[logging.Logger]:
        """Logs with the ids of this run."""
        if self._logger is None:
            facts = {"instance_id": self.instance_id, "activity": self.name}
            self._logger = _ActivityLogger(logger, facts | {"attempt": self.attempt})
        return self._logger

    @property
    def is_cancelled(self) -> bool:
        """Whether nobody waits for the result any more. Long activities look at it and stop."""
        return self._control.is_cancelled()

    @property
    def connection(self) -> Any:
        """Of a transactional activity: its connection to the hub's database, in a transaction.

        A `psycopg.AsyncConnection`. What is written by it commits with the outcome of this
        activity; it must be neither committed nor rolled back here, but savepoints
        (`connection.transaction()`) are fine.

        Raises:
            ConfigInvalid: the activity is not registered with `transactional=True`.
        """
        if self._connection is None:
            raise ConfigInvalid(f"activity {self.name!r} is not registered as transactional")
        return self._connection

    @property
    def heartbeat_details(self) -> Any:
        """What earlier attempts last told by `heartbeat`, as plain JSON; None if nothing.

        It survives crashes as of the last attempt that failed.
        """
        return payload.ANY.decode(self._details, "heartbeat details")

    def heartbeat(self, details: object = None) -> None:
        """Tell that the activity is alive; `details` is any payload, such as the progress.

        If this attempt fails, the next one finds them in `heartbeat_details`.

        Raises:
            InputInvalid: `details` has no JSON form.
            PayloadTooLarge: they are too large.
        """
        self._control.heartbeat(payload.encode(details, "heartbeat details"))


class _ActivityLogger(logging.LoggerAdapter[logging.Logger]):
    def process(self, msg: Any, kwargs: Any) -> tuple[Any, Any]:
        facts: Mapping[str, Any] = self.extra or {}
        ids = " ".join(f"{key}={value}" for key, value in facts.items())
        return f"{msg} [{ids}]", {**kwargs, "extra": {**facts, **(kwargs.get("extra") or {})}}
