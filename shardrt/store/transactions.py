"""Activities whose writes commit together with their outcome.

Only a store in a database that users share can have this. The outcome of a transactional
activity is a row, written by the very transaction in which the activity wrote; its key has no
attempt in it, so of all attempts at most one commits. The row stays until the partition has the
outcome in a checkpoint. Whoever is to run an attempt looks for the row first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractAsyncContextManager


class OutcomeKey(NamedTuple):
    """Which call of an activity: all its attempts have this in common."""

    partition: int
    instance_id: str
    execution_id: str
    task_id: int


class Transaction(Protocol):
    """One that is open. It is rolled back unless it is committed."""

    connection: Any
    """The driver's connection; statements on it belong to this transaction."""

    async def commit(self, outcome: bytes) -> None:
        """Commit, and the outcome with it.

        Raises `EpochFenced` (somebody else owns the partition), `OutcomeExists` (another
        attempt has committed), `StoreUnavailable`: nothing was changed; `CommitUnknown`.
        """
        ...


class Transactions(Protocol):
    """What a store offers beside `Store`, or does not."""

    async def outcome(self, key: OutcomeKey) -> bytes | None:
        """Return the outcome that was committed for a call."""
        ...

    async def settle(self, key: OutcomeKey) -> bytes | None:
        """Do the same after any commit in flight is decided, as after `CommitUnknown`."""
        ...

    def begin(self, key: OutcomeKey, epoch: int) -> AbstractAsyncContextManager[Transaction]:
        """Open a transaction for an attempt of a call, under the epoch of its partition."""
        ...

    async def outcomes(self, partition: int) -> list[OutcomeKey]:
        """Return the calls of a partition that have an outcome."""
        ...

    async def forget(self, keys: Sequence[OutcomeKey]) -> None:
        """Drop outcomes that are in a checkpoint, or that nobody waits for. Idempotent."""
        ...


def transactions_of(store: object) -> Transactions | None:
    """Return what a store offers, if it does."""
    found: Transactions | None = getattr(store, "transactions", None)
    return found
