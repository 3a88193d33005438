"""Which code is to blame for the deaths of shards. Pure: the facts are arguments.

Whatever the event loop was in when its process died is blamed. If it was in nothing, an
activity in a thread did it, but nobody can tell which: all of them are suspected, and run one
at a time from then on, so that the next death tells.

An orchestrator is blamed as such once several of its instances have ended shards. Nobody can be
so unlucky three times as to be in the loop when something else ends the process, but
the code that runs most can: hence it takes proof.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from shardrt.core.entity import is_entity_id
from shardrt.core.ids import partition_of
from shardrt.links import control

if TYPE_CHECKING:
    from collections.abc import Iterable

    from shardrt.host.black_box import Found, Orchestrator, Suspect

WINDOW_S = 600.0
"""Deaths longer ago than this are forgotten."""


@dataclass(slots=True)
class Record:
    """The deaths that one piece of code is blamed for."""

    at_s: list[float] = field(default_factory=list)


@dataclass(slots=True)
class Blames:
    """What a supervisor remembers of how its shards ended."""

    partitions: int
    records: dict[Suspect, Record] = field(default_factory=dict)
    instances: dict[Orchestrator, dict[str, float]] = field(default_factory=dict)
    """Which of an orchestrator have provably ended a shard, and when the last time."""
    condemned: dict[Orchestrator, control.Condemned] = field(default_factory=dict)
    """Orchestrators that are not run, until somebody says otherwise."""
    died_s: float = float("-inf")
    """When a shard died last."""

    def died(
        self, found: Found, now_s: float, *, is_proof: bool = False
    ) -> list[tuple[Suspect, int]]:
        """Take in what a dead shard has left; return who is blamed, and how often by now.

        An orchestrator is blamed only with proof that it was its turn (`evidence`).
        """
        self.died_s = now_s
        if is_proof and found.in_loop is not None and found.orchestrator is not None:
            self._blame_code(found.orchestrator, found.in_loop.instance_id, now_s)
        certain: Iterable[Suspect] = found.alone if found.in_loop is None else (found.in_loop,)
        blamed = [self._blame(each, now_s) for each in certain]
        if not blamed:
            # One suspicion each: only what runs alone is counted on.
            new = [each for each in found.in_threads if each not in self.records]
            blamed = [self._blame(each, now_s) for each in new]
        return blamed

    def watches(self, now_s: float) -> bool:
        """Whether shards should note what they run: one of them has died lately."""
        return now_s - self.died_s < WINDOW_S

    def _blame(self, suspect: Suspect, now_s: float) -> tuple[Suspect, int]:
        record = self.records.setdefault(suspect, Record())
        record.at_s = [at_s for at_s in record.at_s if now_s - at_s < WINDOW_S] + [now_s]
        return suspect, len(record.at_s)

    def _blame_code(self, code: Orchestrator, instance_id: str, now_s: float) -> None:
        known = self.instances.get(code, {})
        recent = {each: at_s for each, at_s in known.items() if now_s - at_s < WINDOW_S}
        self.instances[code] = recent | {instance_id: now_s}
        count = len(self.instances[code])
        # Not deaths, but instances: one whose input is bad is put away by itself, and has to
        # leave those alone that are fine.
        if count >= control.DEATHS_MAX and code not in self.condemned:
            self.condemned[code] = control.Condemned(code.name, code.version, count)

    def pardon(self, code: Orchestrator) -> None:
        """Have an orchestrator run again, with a clean record."""
        self.condemned.pop(code, None)
        self.instances.pop(code, None)

    def of(self, partition: int, now_s: float) -> list[control.Blamed]:
        """Return what the next owner of a partition must know."""
        for suspect, record in list(self.records.items()):
            if now_s - record.at_s[-1] >= WINDOW_S:
                del self.records[suspect]
        return [
            control.Blamed(*suspect, len(record.at_s))
            for suspect, record in self.records.items()
            if partition_of(suspect.instance_id, self.partitions) == partition
        ]

    def opened(self, partition: int) -> None:
        """Forget verdicts that are in the partition's journal by now.

        Those of entities are not, and those of activities are kept: a further attempt of the
        same call that ends like this has failed at once.
        """
        for suspect, record in list(self.records.items()):
            if (
                len(record.at_s) >= control.DEATHS_MAX
                and suspect.task_id is None
                and not is_entity_id(suspect.instance_id)
                and partition_of(suspect.instance_id, self.partitions) == partition
            ):
                del self.records[suspect]
