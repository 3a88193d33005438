"""What a run was asked to do."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Mode = Literal["url", "serve", "embedded"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """The settings of one run."""

    n: int
    """Instances measured."""
    concurrency: int
    """Instances in flight at a time, in a closed loop."""
    rate: float | None = None
    """Starts per second, in an open loop; None is a closed one."""
    warmup: int
    """Instances run before the measurement starts, in the same way."""
    sizes: Mapping[str, float] = field(default_factory=dict)
    """The workload's own settings."""
    mode: Mode = "serve"
    shards: int = 2
    partitions: int = 32
    store: str | None = None
    """Store URL; None is a throw-away Postgres with fsync on."""
    url: str = ""
    """In mode "url": a host that serves `shardrt.bench.app`."""
    token: str | None = None
    app: str = "shardrt.bench:app"
    """What a host that is started for the run serves; it has the workloads."""
    tracing: float | None = None
    """Share of instances that are traced; None: tracing is off."""
    traces_per_s_max: float = 0.0
    """Most of them that a process begins in a second; 0: no such bound."""

    @property
    def partitions_each(self) -> float:
        """Partitions of a shard."""
        return self.partitions / (self.shards if self.mode == "serve" else 1)
