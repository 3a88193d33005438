"""The store protocol: what a hub needs of a database, in our words.

A store holds one *hub*: partitions with their journals and checkpoints, the rows of its
instances, and the hosts that take part. Three implementations pass one contract suite
(`tests/store`): ``memory://``, ``sqlite:///file`` and ``postgresql://…``.

The law is *fencing*: every write to a partition names the epoch under which its owner claimed
it, and takes effect only if that is still the partition's epoch, in the same atomic statement.
Whoever lost a partition learns it from the refusal; clocks and leases only decide who tries.

- No method writes two partitions in one transaction, except that `Journal.append` may send
  several partitions' records in one statement, each of which stands or falls alone. What is
  read of several by key need not be of one moment.
- Only database time judges leases. Times are integers, microseconds since 1970 UTC.
- Failures: `StoreUnavailable` (nothing was changed), `CommitUnknown` (a write was in flight
  when the connection broke; only `append`, `checkpoint`, `claim`, `release`, `truncate` and
  `purge` raise it), `EpochFenced`. Never a driver's own exception. The other writes (`create`,
  `renew`, `leave`) do no harm when repeated, so `StoreUnavailable` is all they say.
- A cancelled call may or may not have taken effect, like `CommitUnknown`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple, Protocol

import msgspec

FORMAT = 1
"""Version of the records and rows that this release writes."""

ERA = 1_000_000_000
"""Epochs of one era of a store. A fail-over of its server begins a later one: every epoch grows
to another multiple and what it was before, beyond any that the old server may have given out."""

PARTITIONS_DEFAULT = 32
"""How many partitions a hub gets if nobody says."""


def era_of(epoch: int) -> int:
    """Return a number that grew with each replacement of the store's server."""
    return epoch // ERA


class Hub(msgspec.Struct, frozen=True):
    """The fixed settings of a hub, and the identity of the database behind it."""

    partitions: int
    format: int
    identity: str
    """Names the database server's data and its timeline, where the store can tell."""
    id: str
    """Random: tells hubs apart. A restored copy has that of the original."""


class Host(msgspec.Struct, frozen=True):
    """One host's row. `(host_id, incarnation)` is the owner that partitions name."""

    host_id: str
    incarnation: str
    address: str
    """URL at which other hosts and clients reach its gateway; empty if it has none."""
    shards: int
    expires_at: int = 0
    draining: bool = False
    version: str = ""


class Ownership(msgspec.Struct, frozen=True):
    """One partition's row, without its checkpoint."""

    partition: int
    owner: str | None
    """`host_id/incarnation` of the owner; None when released."""
    epoch: int
    commit_lsn: int
    checkpoint_lsn: int


class View(msgspec.Struct, frozen=True):
    """One consistent look at the hub, stamped with database time."""

    now: int
    hosts: tuple[Host, ...]
    """All hosts whose row exists; one is live if `expires_at > now`."""
    partitions: tuple[Ownership, ...]
    identity: str = ""
    """Of the server's data and its timeline, when renewing, where the store can tell."""

    @property
    def era(self) -> int:
        """The hub's: all epochs of a hub enter a new one together."""
        return max((era_of(row.epoch) for row in self.partitions), default=0)


class InstanceKey(NamedTuple):
    """Where the row of an instance or entity is looked for."""

    partition: int
    instance_id: str


class ExecutionKey(NamedTuple):
    """Where the history of an execution is looked for."""

    partition: int
    instance_id: str
    execution_id: str


SUSPENDED = "Suspended"
"""In the column of the status."""


class Append(msgspec.Struct, frozen=True, gc=False):
    """One record for one partition's journal; `lsn` must be its commit LSN plus one."""

    partition: int
    epoch: int
    lsn: int
    record: bytes


class InstanceRow(msgspec.Struct, frozen=True, gc=False):
    """An instance or entity as the store keeps it: columns to query by, and its whole state."""

    instance_id: str
    execution_id: str
    name: str
    version: str | None
    status: str
    created_at: int
    updated_at: int
    completed_at: int | None
    parent_id: str | None
    tags: dict[str, str] | None
    next_due: int | None
    """When its earliest timer is due."""
    active: bool
    """Recovery must look at it: it has an undelivered inbox, running activities, …"""
    state: bytes
    """The encoded instance, without history (JSON)."""

    @property
    def may_run(self) -> bool:
        """Whether its code may get a turn as it is: it has not ended, and is not suspended."""
        return self.completed_at is None and self.status != SUSPENDED


class HistoryChunk(msgspec.Struct, frozen=True, gc=False):
    """New history events of one instance, as one row."""

    instance_id: str
    execution_id: str
    seq: int
    """Index of the first event within the execution, from 0."""
    events: bytes
    """JSON array of history events."""


class Whole(NamedTuple):
    """An instance and its history, as of one moment."""

    row: InstanceRow
    chunks: Sequence[HistoryChunk]
    """Of its execution, in order; none unless ``row.may_run``."""


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Everything of one partition that changed since its last checkpoint, as of `lsn`."""

    partition: int
    epoch: int
    lsn: int
    state: bytes
    """Partition-wide state: outbox, dedup, sessions (JSON with CRC, see `core.codec`)."""
    upserts: Sequence[InstanceRow] = ()
    chunks: Sequence[HistoryChunk] = ()
    resets: Sequence[str] = ()
    """Instances of which history of *other* executions than the row's is to be deleted."""
    deletes: Sequence[str] = ()
    """Instances to delete altogether, with their history."""


class PartitionHead(msgspec.Struct, frozen=True):
    """Where recovery starts."""

    epoch: int
    commit_lsn: int
    checkpoint_lsn: int
    state: bytes
    """As last checkpointed; empty if never."""


ENTITY = "Entity"
"""In the column of the status: the row is an entity's, not an instance's."""
LIMIT = "Limit"
"""Likewise: it is a limiter's."""


class Filter(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which instances to list or purge; conditions are joined by AND. Half-open ranges."""

    status: tuple[str, ...] = ()
    name: str | None = None
    id_prefix: str | None = None
    created_from: int | None = None
    created_to: int | None = None
    completed_from: int | None = None
    completed_to: int | None = None
    tags: dict[str, str] | None = None
    entities: bool = False
    """Entities, and only those; otherwise none of them."""
    limits: bool = False
    """Limiters, and only those; likewise."""


class Page(msgspec.Struct, frozen=True):
    """Rows ordered by `(created_at, instance_id)` ascending, and where to go on."""

    rows: tuple[InstanceRow, ...]
    token: str | None
    """Opaque; None on the last page."""


class Leases(Protocol):
    """Hosts, ownership and the hub itself. One caller per host: its supervisor."""

    async def create(self, partitions: int) -> Hub:
        """Create or upgrade the schema and the hub; return the hub as it is.

        Idempotent, also under concurrency. Raises `HubMismatch` if the hub exists with another
        number of partitions (``partitions=0`` accepts any), `SchemaTooNew`, `StoreUnsafe`.
        """
        ...

    async def renew(self, host: Host, ttl: int) -> View:
        """Write the host's row with ``expires_at = database now + ttl`` and return the view.

        A row of the same `host_id` with another incarnation that is still live raises
        `EpochFenced`: two processes use one host id (or this one was replaced). An expired
        one is replaced. Rows expired for more than an hour are deleted.
        """
        ...

    async def claim(self, partition: int, seen_epoch: int, owner: str) -> int | None:
        """Take a partition; return the new epoch, or None if somebody was faster.

        Succeeds only if its epoch is still `seen_epoch` and it has no owner, its owner's host
        is expired or absent, or the owner is the caller itself. Waits at most a few seconds
        for an append in flight; the epoch grows by one.
        """
        ...

    async def release(self, partition: int, epoch: int) -> bool:
        """Give a partition up, if the epoch is still ours."""
        ...

    async def leave(self, host: Host) -> None:
        """Delete the host's row, and give up whatever it still owns, if it is still its own."""
        ...

    async def view(self) -> View:
        """Look without renewing."""
        ...


class Journal(Protocol):
    """The per-partition log."""

    async def append(self, batch: Sequence[Append]) -> set[int]:
        """Append each record if its epoch and LSN fit; return the partitions that did.

        One round trip, one implicit transaction, no lock held across a round trip. When this
        returns, the records are durable. A partition missing from the answer was not changed:
        its epoch is gone, or the LSN is not the next one (use `position` to tell).
        """
        ...

    async def position(self, partition: int) -> tuple[int, int]:
        """Return (epoch, commit LSN), after any append in flight is decided.

        That includes an append of this store object that ended in `CommitUnknown` and may
        still be on its way to the server: if the answer does not count it, it is refused.
        """
        ...

    def read(self, partition: int, after: int) -> AsyncIterator[tuple[int, bytes]]:
        """Stream (lsn, record) from `after + 1` on, in order, with bounded memory.

        Raises `RecordCorrupt` at a gap, also if `after + 1` has been truncated.
        """
        ...


class Checkpoints(Protocol):
    """Write-behind materialisation."""

    async def checkpoint(self, checkpoint: Checkpoint) -> None:
        """Write all of it, and `checkpoint_lsn`, atomically. Raises `EpochFenced`.

        Idempotent: writing the same checkpoint twice (after `CommitUnknown`) is harmless.
        An instance in both `deletes` and `upserts` was deleted and created again. An LSN
        before the last checkpoint's or ahead of the journal is a bug: `ValueError`.
        """
        ...

    async def truncate(self, partition: int, epoch: int, lsn: int) -> int:
        """Delete journal records up to `lsn`, never past the stored checkpoint; return how many.

        The condition ``lsn <= checkpoint_lsn`` is read from the stored row in the same
        statement. Raises `EpochFenced`.
        """
        ...

    async def head(self, partition: int, epoch: int) -> PartitionHead:
        """Return where recovery starts. Raises `EpochFenced`."""
        ...


class Instances(Protocol):
    """Rows of instances, and queries over them."""

    async def load(self, keys: Sequence[InstanceKey]) -> list[InstanceRow]:
        """Return those that exist, each once, in any order."""
        ...

    async def load_whole(self, keys: Sequence[InstanceKey]) -> list[Whole]:
        """Return those that exist, each once, in any order, and what their code needs to go on."""
        ...

    def active(self, partition: int) -> AsyncIterator[InstanceRow]:
        """Stream the rows with ``active`` set."""
        ...

    def due(self, partition: int) -> AsyncIterator[tuple[int, str]]:
        """Stream (next_due, instance_id) of the rows that have a timer."""
        ...

    async def history(self, keys: Sequence[ExecutionKey]) -> list[HistoryChunk]:
        """Return the chunks of these executions, each once, those of one execution in order."""
        ...

    async def query(self, where: Filter, *, limit: int, token: str | None = None) -> Page:
        """Return one page over all partitions. A foreign or broken token: `InputInvalid`."""
        ...

    async def count(self, where: Filter) -> dict[str, int]:
        """Return how many instances there are per status."""
        ...


class Store(Leases, Journal, Checkpoints, Instances, Protocol):
    """All of it, with a lifetime. Statistics count what this object did since it was opened."""

    url_masked: str
    """The URL without its password."""

    async def open(self) -> None:
        """Connect. Raises `StoreUnavailable` with one clear line."""
        ...

    async def close(self) -> None:
        """Give back all connections; idempotent."""
        ...

    def stats(self) -> dict[str, int]:
        """Return counters: commits, commit_bytes, checkpoints, checkpoint_bytes, queries."""
        ...
