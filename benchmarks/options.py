"""What a run was asked to do."""

from dataclasses import dataclass
from typing import Literal

Mode = Literal["serve", "embedded"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """The settings of one run."""

    n: int
    """Instances measured."""
    concurrency: int
    """Instances in flight at a time."""
    warmup: int
    """Instances run before the measurement starts, with the same concurrency."""
    mode: Mode = "serve"
    shards: int = 2
    partitions: int = 32
    store: str | None = None
    """Store URL; None is a throw-away Postgres with fsync on."""
    url: str | None = None
    """A host that runs already; its app must have `benchmarks.app`'s orchestrators."""
    idle_s: float = 10.0
    """For how long `parked` counts the queries of an idle hub."""
