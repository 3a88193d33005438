"""Runs an activity in a transaction that commits its outcome too: its writes happen once.

An attempt may run any number of times; of all, one commits. Whoever comes later finds the
outcome and passes it on without running.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec import Raw

from shardrt.core.state import Instance
from shardrt.errors import (
    CommitUnknown,
    ConfigInvalid,
    EpochFenced,
    OutcomeExists,
    StoreError,
    StoreUnavailable,
)
from shardrt.store.transactions import transactions_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from shardrt.core.partition import Partition
    from shardrt.orchestration.app import App
    from shardrt.store.base import Store
    from shardrt.store.transactions import OutcomeKey, Transactions

logger = logging.getLogger(__name__)

T = TypeVar("T")

SETTLE_S = 60.0
SETTLE_S_MIN = 0.1
SETTLE_S_MAX = 2.0


async def commit_once(
    transactions: Transactions,
    key: OutcomeKey,
    epoch: int,
    work: Callable[[Any], Awaitable[Raw]],
) -> Raw:
    """Return the outcome that is committed, by this attempt or by an earlier one.

    Args:
        transactions: of the store.
        key: which call of an activity.
        epoch: under which the partition asks.
        work: called with a connection; what it writes there is rolled back if it raises.

    Raises:
        EpochFenced: somebody else owns the partition, or must, to find out what was changed.
        StoreUnavailable: nothing was changed.
    """
    known = await transactions.outcome(key)
    if known is not None:
        return Raw(known)
    try:
        async with transactions.begin(key, epoch) as transaction:
            outcome = await work(transaction.connection)
            await _uninterrupted(transaction.commit(bytes(outcome)))
    except OutcomeExists:
        known = await transactions.outcome(key)
    except CommitUnknown:
        known = await _uninterrupted(_settled(transactions, key))
    else:
        return outcome
    if known is None:
        raise StoreUnavailable("the transaction of the activity was not committed")
    return Raw(known)


async def _settled(transactions: Transactions, key: OutcomeKey) -> bytes | None:
    """Find out whether a commit was made: that must not be guessed.

    Raises:
        EpochFenced: it takes longer than a lease should; the next owner finds it out.
    """
    loop = asyncio.get_running_loop()
    give_up_s = loop.time() + SETTLE_S
    backoff_s = SETTLE_S_MIN
    while True:
        try:
            return await transactions.settle(key)
        except StoreError as error:
            logger.warning("instance=%s commit not resolved yet: %s", key.instance_id, error)
            if loop.time() >= give_up_s:
                raise EpochFenced("what became of a commit cannot be found out") from None
            await asyncio.sleep(backoff_s)
            backoff_s = min(SETTLE_S_MAX, backoff_s * 2)


async def _uninterrupted(commit: Coroutine[Any, Any, T]) -> T:
    """Commit, also if that is cancelled meanwhile: then it is too late for that."""
    task = asyncio.ensure_future(commit)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        return task.result()


def transactional_names(app: App, store: Store) -> frozenset[str]:
    """Return the names of an app's transactional activities.

    Raises:
        ConfigInvalid: there are some, and the store has no transactions for them.
    """
    names = frozenset(each.name for each in app.activities if each.transactional)
    if names and transactions_of(store) is None:
        raise ConfigInvalid(
            f"activities with transactional=True ({', '.join(sorted(names))}) need a hub in "
            f"PostgreSQL, not {store.url_masked}"
        )
    return names


async def orphans_of(store: Store, core: Partition) -> list[OutcomeKey]:
    """Return the outcomes that nobody waits for in a partition just recovered.

    They are of instances that were ended while the activity ran, or were in a checkpoint
    already when their owner died.
    """
    transactions = transactions_of(store)
    if transactions is None:
        return []
    try:
        keys = await transactions.outcomes(core.state.partition)
    except StoreError as error:
        logger.warning("partition=%d orphans not looked for: %s", core.state.partition, error)
        return []
    return [key for key in keys if not _is_awaited(core, key)]


def _is_awaited(core: Partition, key: OutcomeKey) -> bool:
    instance = core.instances.get(key.instance_id)
    return (
        isinstance(instance, Instance)
        and instance.execution_id == key.execution_id
        and key.task_id in instance.pending
    )
