"""What is counted and measured: the catalogue, and how samples of several processes add up.

Names, labels and bounds are those that dashboards of this family of engines expect; Prometheus
adds ``_total`` and ``_bucket``. There is no label for an instance: its values have no bound.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable

DURATIONS_S = (0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
STATE_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)


class Metric(NamedTuple):
    """One metric: a counter, a level if it is a gauge, a histogram if it has bounds."""

    help: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()
    """Upper bounds of the buckets, in seconds."""
    is_gauge: bool = False


CATALOGUE = {
    "orchestrations_started": Metric("Instances created.", ("orchestrator_name",)),
    "orchestrations_completed": Metric(
        "Instances that ended, however they did.", ("orchestrator_name", "status")
    ),
    "orchestrations_failed": Metric("Instances that failed.", ("orchestrator_name", "error_type")),
    "orchestrations_duration_seconds": Metric(
        "From creation to the end.", ("orchestrator_name", "status"), DURATIONS_S
    ),
    "orchestrations_parked": Metric(
        "Instances of this host's partitions whose code cannot go on.", is_gauge=True
    ),
    "orchestrators_quarantined": Metric(
        "Orchestrators that this host does not run, as they ended shard processes.", is_gauge=True
    ),
    "functions_calls": Metric("Attempts of activities that ended.", ("function_name", "status")),
    "functions_failures": Metric(
        "Attempts of activities that failed.", ("function_name", "error_type")
    ),
    "functions_duration_seconds": Metric(
        "Run time of an attempt.", ("function_name", "status"), DURATIONS_S
    ),
    "events_raised": Metric("External events accepted."),
    "events_delivered": Metric("External events handed to the code."),
    "timers_created": Metric("Durable timers created."),
    "timers_fired": Metric("Durable timers that fired."),
    "state_save_duration_seconds": Metric("Group commits.", ("storage_type",), STATE_S),
    "state_flush_duration_seconds": Metric("Checkpoints.", ("storage_type",), STATE_S),
    "state_load_duration_seconds": Metric("Loads of instances.", ("storage_type",), STATE_S),
    "lease_active_count": Metric("Partitions that this host serves.", is_gauge=True),
    "shardrt_level": Metric(
        "Levels of this host's shards, by name: instances in memory, requests in flight, …",
        ("name",),
        is_gauge=True,
    ),
    "shardrt_work": Metric(
        "Work done by this host's shards, by name: commits, evictions, replays, …", ("name",)
    ),
    "shardrt_child_silent_seconds": Metric(
        "Since the last beat of a child process, which comes twice a second.",
        ("child",),
        is_gauge=True,
    ),
    "shardrt_child_restarts": Metric("Restarts of child processes.", ("child",)),
}
"""By name, as Prometheus shows it without its suffixes."""

LABELS_MAX = 500
"""So many sets of labels at most per metric and process; what comes later counts as "other"."""


class Sample(msgspec.Struct, array_like=True, gc=False):
    """The value of a metric for one set of labels."""

    value: float = 0.0
    """Of a histogram: the sum."""
    buckets: list[int] = []
    """How many fell into each bucket, the one beyond the last bound included."""


Samples: TypeAlias = dict[str, list[tuple[tuple[str, ...], Sample]]]
"""Metric → its samples, each with its labels; as they travel."""
Table: TypeAlias = dict[str, dict[tuple[str, ...], Sample]]


def add_up(parts: Iterable[Samples]) -> Samples:
    """Return the sums over several processes."""
    table: Table = {}
    for part in parts:
        for name, samples in part.items():
            of_name = table.setdefault(name, {})
            for labels, sample in samples:
                total = of_name.setdefault(labels, Sample(buckets=[0] * len(sample.buckets)))
                total.value += sample.value
                total.buckets = [a + b for a, b in zip(total.buckets, sample.buckets, strict=True)]
    return packed(table)


def packed(table: Table) -> Samples:
    """Return a table as it travels."""
    return {name: list(samples.items()) for name, samples in table.items()}
