"""Counts what a shard does. See `links.metrics` for what there is.

Counted is what was written to the journal, or what ran here: a replay counts nothing, and an
instance is counted once wherever it moves. Sums of a process that dies go with it, as is usual:
whoever collects them sees a reset.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

from shardrt.core.history import Status
from shardrt.links.metrics import CATALOGUE, DURATIONS_S, LABELS_MAX, Sample, Samples, Table, packed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from shardrt.core.history import Failure
    from shardrt.core.state import Instance
    from shardrt.core.tally import Tally

OTHER = "other"


class Meter:
    """The sums of one shard."""

    def __init__(self, storage_type: str) -> None:
        self._storage = (storage_type,)
        self._table: Table = {}
        self._quick: dict[str, Sample] = {}
        """Activity → run times of attempts that were completed: the one that counts most."""
        self.failed: Callable[[Instance], None] = lambda _: None
        """Called with each instance that has failed."""

    def count(self, tally: Tally) -> None:
        """Count what has happened in a partition, and clear the tally."""
        if tally.is_empty():
            return
        for name in tally.started:
            self.add("orchestrations_started", (name,))
        for instance in tally.ended:
            self._count_ended(instance)
        if tally.events_raised:
            self.add("events_raised", (), tally.events_raised)
        if tally.timers_created:
            self.add("timers_created", (), tally.timers_created)
        if tally.timers_fired:
            self.add("timers_fired", (), tally.timers_fired)
        tally.clear()

    def _count_ended(self, instance: Instance) -> None:
        if instance.completed_at is None:
            return  # it was rewound in the same moment, and will end again
        labels = (instance.name, instance.status.value)
        seconds = (instance.completed_at - instance.created_at) / 1e6
        self.observe("orchestrations_duration_seconds", labels, seconds)
        if instance.status is Status.FAILED and instance.failure is not None:
            self.add("orchestrations_failed", (instance.name, instance.failure.type))
            self.failed(instance)

    def attempted(self, name: str, failure: Failure | None, seconds: float) -> None:
        """Count an attempt of an activity."""
        if failure is not None:
            self.observe("functions_duration_seconds", (name, "Failed"), seconds)
            self.add("functions_failures", (name, failure.type))
            return
        sample = self._quick.get(name)
        if sample is None:
            sample = self._sample("functions_duration_seconds", (name, "Completed"))
            self._quick[name] = sample
        sample.value += seconds
        sample.buckets[bisect_left(DURATIONS_S, seconds)] += 1

    def saved(self, seconds: float) -> None:
        """Note how long a group commit took."""
        self.observe("state_save_duration_seconds", self._storage, seconds)

    def flushed(self, seconds: float) -> None:
        """Note how long a checkpoint took."""
        self.observe("state_flush_duration_seconds", self._storage, seconds)

    def loaded(self, seconds: float) -> None:
        """Note how long a load took."""
        self.observe("state_load_duration_seconds", self._storage, seconds)

    def add(self, name: str, labels: tuple[str, ...] = (), by: float = 1) -> None:
        """Add to a counter."""
        self._sample(name, labels).value += by

    def observe(self, name: str, labels: tuple[str, ...], value: float) -> None:
        """Put a value into a histogram."""
        sample = self._sample(name, labels)
        sample.value += value
        sample.buckets[bisect_left(CATALOGUE[name].bounds, value)] += 1

    def _sample(self, name: str, labels: tuple[str, ...]) -> Sample:
        samples = self._table.get(name)
        if samples is None:
            samples = self._table[name] = {}
        sample = samples.get(labels)
        if sample is None:
            if len(samples) >= LABELS_MAX:
                labels = (OTHER,) * len(labels)
            bounds = CATALOGUE[name].bounds
            buckets = [0] * (len(bounds) + 1) if bounds else []
            sample = samples.setdefault(labels, Sample(buckets=buckets))
        return sample

    def samples(self, counters: Mapping[str, float]) -> Samples:
        """Return everything as of now, with the shard's own counters and levels."""
        samples = packed(self._table)
        for counter, histogram in COUNTED_BY.items():
            samples[counter] = [
                (labels, Sample(sum(sample.buckets)))
                for labels, sample in samples.get(histogram, [])
            ]
        samples["orchestrations_parked"] = [((), Sample(counters.get(PARKED, 0)))]
        for metric, is_level in (("shardrt_level", True), ("shardrt_work", False)):
            samples[metric] = [
                ((name,), Sample(value))
                for name, value in counters.items()
                if (name in LEVELS) is is_level and name != PARKED
            ]
        return samples


PARKED = "instances_parked"
"""The counter of a shard that has a metric of its own."""

COUNTED_BY = {
    "orchestrations_completed": "orchestrations_duration_seconds",
    "functions_calls": "functions_duration_seconds",
}
"""Counters that are the sizes of histograms."""

LEVELS = frozenset(
    {
        "instances_resident",
        "entities_resident",
        "instances_idle_bytes",
        "instances_quarantined",
        "activities_running",
        "activities_lingering",
        "bytes_in_flight",
        "requests_in_flight",
        "checkpoint_lag_s",
        "checkpoint_wait_s",
        "commit_wait_s",
        "journal_unsaved_bytes",
    }
)
"""Counters of a shard that go up and down."""
