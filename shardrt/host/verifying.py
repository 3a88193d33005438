"""Whether what a store holds of a hub fits together; see `verify`.

Nothing is written, so this may run beside hosts that serve. What changes meanwhile is read
again before it is called damaged.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import msgspec

from shardrt.core import history as h
from shardrt.core.codec import decode_head, decode_history
from shardrt.core.entity import is_entity_id
from shardrt.core.ids import partition_of
from shardrt.core.state import Instance
from shardrt.errors import EpochFenced, RecordCorrupt, ShardrtError
from shardrt.host.checkpointer import row_of, row_of_entity
from shardrt.host.quarantine import decode_row
from shardrt.host.recovery import recover
from shardrt.store.base import ExecutionKey, Filter, InstanceKey, InstanceRow

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    from shardrt.core.entity import Entity
    from shardrt.core.state import PartitionState
    from shardrt.store.base import Ownership, Store

PAGE = 200
LOOKS_MAX = 5
"""So often is read again what has changed while it was read."""
_ENDINGS = (h.ExecutionCompleted, h.ExecutionTerminated)

_RESTORE = "stop the hosts and restore the store from a backup"
_REPAIR = "repair the row from a backup, then resume it; or `shardrt purge --force` it"
_REWRITE = "the next change of the instance writes the row anew; until then searches may miss it"
_HISTORY = "restore its history from a backup; or terminate and purge it"
_REPORT = "keep a copy of the store and report this: it is a bug, or two hubs were mixed"


class Finding(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """Something that does not fit."""

    kind: str
    """``owner``, ``checkpoint``, ``journal``, ``replay``, ``stream``, ``row``, ``column``,
    ``place``, ``double`` or ``history``."""
    partition: int
    text: str
    advice: str
    instance_id: str | None = None
    lsn: int | None = None


class Report(msgspec.Struct, rename="camel"):
    """What was looked at, and what was found."""

    partitions: int = 0
    records: int = 0
    instances: int = 0
    entities: int = 0
    events: int = 0
    findings: list[Finding] = []


async def verify(
    store: Store,
    *,
    only: int | None = None,
    progress: Callable[[str, int], None] = lambda _what, _count: None,
) -> Report:
    """Check a hub, or one partition of it. `progress` is told what was looked at, and how much.

    Raises:
        StoreError: the store cannot be read.
    """
    return await _Verifier(store, only, progress).run()


class _Verifier:
    def __init__(
        self, store: Store, only: int | None, progress: Callable[[str, int], None]
    ) -> None:
        self._store = store
        self._only = only
        self._progress = progress
        self._partitions = 0
        self._states: dict[int, PartitionState] = {}
        """As they are after the journal, of partitions that can be recovered."""
        self._seen: Counter[str] = Counter()
        self.report = Report()

    async def run(self) -> Report:
        rows = (await self._store.view()).partitions
        self._partitions = len(rows)
        for row in rows:
            # Streams have two ends: all partitions are replayed, whatever was asked for.
            await self._partition(row.partition, told=self._is_wanted(row.partition))
            self._progress("partitions", 1)
        await self._streams()
        for entities in (False, True):
            async for page in self._pages(entities=entities):
                await self._check_page(page)
                self._progress("rows", len(page))
        return self.report

    def _is_wanted(self, partition: int) -> bool:
        return self._only is None or partition == self._only

    def _found(
        self,
        kind: str,
        partition: int,
        text: str,
        advice: str,
        *,
        instance_id: str | None = None,
        lsn: int | None = None,
    ) -> None:
        if self._is_wanted(partition):
            finding = Finding(kind, partition, text, advice, instance_id, lsn)
            self.report.findings.append(finding)

    # -- partitions ------------------------------------------------------------------------------

    async def _partition(self, partition: int, *, told: bool) -> None:
        """Check a partition's own state and journal, as of one moment."""
        findings, records = self.report.findings, self.report.records
        for _ in range(LOOKS_MAX):
            before = (await self._store.view()).partitions[partition]
            self.report.findings, self.report.records = list(findings), records
            try:
                await self._look(before)
            except EpochFenced:
                continue
            if _place(before) == _place((await self._store.view()).partitions[partition]):
                break
            if len(self.report.findings) == len(findings):
                break  # it has moved on, and fitted all the same
        self.report.partitions += told

    async def _look(self, row: Ownership) -> None:
        partition = row.partition
        if row.owner is not None and row.epoch < 1:
            self._found("owner", partition, "has an owner but was never claimed", _REPORT)
        if row.checkpoint_lsn > row.commit_lsn:
            text = f"checkpoint {row.checkpoint_lsn} is ahead of the journal ({row.commit_lsn})"
            self._found("checkpoint", partition, text, _RESTORE, lsn=row.checkpoint_lsn)
        head = await self._store.head(partition, row.epoch)
        if head.state:
            try:
                stored = decode_head(head.state)
            except RecordCorrupt as error:
                text = f"its checkpoint {error}"
                self._found("checkpoint", partition, text, _RESTORE, lsn=row.checkpoint_lsn)
                return
            if stored.epoch > row.epoch:
                text = f"its checkpoint is of epoch {stored.epoch}, later than its own {row.epoch}"
                self._found("checkpoint", partition, text, _REPORT)
        await self._replay(row)

    async def _replay(self, row: Ownership) -> None:
        partition = row.partition
        try:
            core, head = await recover(self._store, partition, self._partitions, row.epoch)
        except EpochFenced:
            raise
        except RecordCorrupt as error:
            self._found("journal", partition, str(error), _RESTORE)
        except ShardrtError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a journal that does not fit leads to
            text = f"its journal does not fit its checkpoint: {type(error).__name__}: {error}"
            self._found("replay", partition, text, _RESTORE)
        else:
            self._states[partition] = core.state
            self.report.records += head.commit_lsn - head.checkpoint_lsn

    async def _state(self, partition: int) -> PartitionState | None:
        """Read a partition's state anew; None if it cannot be recovered."""
        for _ in range(LOOKS_MAX):
            epoch = (await self._store.view()).partitions[partition].epoch
            try:
                core, _ = await recover(self._store, partition, self._partitions, epoch)
            except EpochFenced:
                continue
            except RecordCorrupt:
                return None
            return core.state
        return None

    # -- messages between partitions -------------------------------------------------------------

    async def _streams(self) -> None:
        for source, sender in self._states.items():
            for destination, receiver in self._states.items():
                if not self._agree(source, sender, destination, receiver):
                    await self._disagree(source, destination)

    @staticmethod
    def _agree(
        source: int, sender: PartitionState, destination: int, receiver: PartitionState
    ) -> bool:
        lane = sender.lanes.get(destination)
        received = receiver.received.get(source, 0)
        acknowledged, last = (lane.acknowledged, lane.last) if lane is not None else (0, 0)
        return acknowledged <= received <= last

    async def _disagree(self, source: int, destination: int) -> None:
        # What the sender says later than the receiver covers what was received, and the
        # receiver, later still, what was acknowledged.
        receiver = await self._state(destination)
        sender = await self._state(source)
        later = await self._state(destination)
        if receiver is None or sender is None or later is None:
            return
        lane = sender.lanes.get(destination)
        acknowledged, last = (lane.acknowledged, lane.last) if lane is not None else (0, 0)
        if (received := receiver.received.get(source, 0)) > last:
            text = f"has {received} messages of partition {source}, which sent {last}"
            self._found("stream", destination, text, _RESTORE)
        elif (received := later.received.get(source, 0)) < acknowledged:
            text = (
                f"has {received} messages of partition {source}, "
                f"which was told that {acknowledged} arrived"
            )
            self._found("stream", destination, text, _RESTORE)

    # -- rows ------------------------------------------------------------------------------------

    async def _pages(self, *, entities: bool) -> AsyncIterator[list[InstanceRow]]:
        token = None
        while True:
            where = Filter(entities=entities)
            page = await self._store.query(where, limit=PAGE, token=token)
            if page.rows:
                yield list(page.rows)
            token = page.token
            if token is None:
                return

    async def _check_page(self, rows: list[InstanceRow]) -> None:
        by_partition: dict[int, list[InstanceRow]] = {}
        for row in rows:
            by_partition.setdefault(partition_of(row.instance_id, self._partitions), []).append(row)
        for partition, own in by_partition.items():
            if not self._is_wanted(partition):
                continue
            keys = [InstanceKey(partition, row.instance_id) for row in own]
            placed = {row.instance_id for row in await self._store.load(keys)}
            for row in own:
                await self._check_row(partition, row, is_placed=row.instance_id in placed)

    async def _check_row(self, partition: int, row: InstanceRow, *, is_placed: bool) -> None:
        instance_id = row.instance_id
        self._seen[instance_id] += 1
        if is_entity_id(instance_id):
            self.report.entities += 1
        else:
            self.report.instances += 1
        if self._seen[instance_id] > 1:
            text = "there is more than one row of this id"
            self._found("double", partition, text, _REPORT, instance_id=instance_id)
            return
        if not is_placed:
            if await self._exists(instance_id, row):
                text = f"its row is not in partition {partition}, where it would be looked for"
                self._found("place", partition, text, _REPORT, instance_id=instance_id)
            return
        found: list[Finding] = []
        for _ in range(LOOKS_MAX):
            found = await self._check_state(partition, row)
            if not found:
                break
            current = await self._store.load([InstanceKey(partition, instance_id)])
            if not current:
                return  # purged meanwhile
            if current[0] == row:
                break
            row = current[0]
        self.report.findings += found

    async def _exists(self, instance_id: str, row: InstanceRow) -> bool:
        """Whether a row that was listed is still there: it may have been purged meanwhile."""
        where = Filter(
            id_prefix=instance_id,
            created_from=row.created_at,
            created_to=row.created_at + 1,
            entities=is_entity_id(instance_id),
        )
        page = await self._store.query(where, limit=PAGE)
        return any(each.instance_id == instance_id for each in page.rows)

    async def _check_state(self, partition: int, row: InstanceRow) -> list[Finding]:
        instance_id = row.instance_id
        try:
            resident = decode_row(row)
        except RecordCorrupt as error:
            text = f"its state {error}"
            return [Finding("row", partition, text, _REPAIR, instance_id)]
        findings = [
            Finding("column", partition, text, _REWRITE, instance_id)
            for text in _columns_that_differ(row, resident)
        ]
        if isinstance(resident, Instance):
            problem = await self._check_history(partition, resident)
            if problem:
                findings.append(Finding("history", partition, problem, _HISTORY, instance_id))
        return findings

    async def _check_history(self, partition: int, instance: Instance) -> str:
        """Return what is wrong with the stored history of an instance, or nothing."""
        key = ExecutionKey(partition, instance.instance_id, instance.execution_id)
        chunks = await self._store.history([key])
        events: list[h.HistoryEvent] = []
        for chunk in chunks:
            if chunk.seq != len(events):
                return f"its history has a gap: event {len(events)} is followed by {chunk.seq}"
            try:
                events += decode_history(chunk.events)
            except RecordCorrupt as error:
                return f"its history from event {chunk.seq} on {error}"
        self.report.events += len(events)
        if len(events) != instance.history_length:
            length = instance.history_length
            return f"its history has {len(events)} events, its state speaks of {length}"
        return _story_problem(instance, events)


def _place(row: Ownership) -> tuple[int, int, int]:
    return row.epoch, row.commit_lsn, row.checkpoint_lsn


def _columns_that_differ(row: InstanceRow, resident: Instance | Entity) -> Iterable[str]:
    expected = row_of(resident) if isinstance(resident, Instance) else row_of_entity(resident)
    for name in InstanceRow.__struct_fields__:
        if name == "state":
            continue
        found, right = getattr(row, name), getattr(expected, name)
        if name == "tags":
            found, right = found or None, right or None
        if found != right:
            yield f"column {name} says {found!r}, its state {right!r}"


def _story_problem(instance: Instance, events: list[h.HistoryEvent]) -> str:
    if not events or not isinstance(events[0], h.ExecutionStarted):
        return "its history does not begin with its start"
    turns = sum(isinstance(event, h.OrchestratorStarted) for event in events)
    if turns != instance.turn:
        return f"its history has {turns} turns, its state speaks of {instance.turn}"
    if instance.is_final != isinstance(events[-1], _ENDINGS):
        return f"its history ends with {type(events[-1]).__name__}, but it is {instance.status}"
    return ""
