"""Sampled stacks by layer.

A sample counts for the innermost frame of a layer that it shows, so what a library or the
interpreter does for a layer counts for that layer. Some work is known by who asked for it: all
that a checkpoint does is the checkpoint's, its encoding included.
"""

from collections import Counter
from collections.abc import Iterable

CHECKPOINT = ("shardrt/host/checkpointer.py", "checkpoint")
"""Takes all that it calls."""

PROGRAMS = (
    "shardrt/host/child.py",
    "shardrt/host/process.py",
    "shardrt/http/process.py",
    "benchmarks/costs/__main__.py",
)
"""Around everything: no layer."""

LAYERS: tuple[tuple[str, str], ...] = (
    ("shardrt/core/codec.py", "encode"),
    ("shardrt/core/", "partition"),
    ("shardrt/orchestration/", "coroutine"),
    ("shardrt/bench/workloads/", "coroutine"),
    ("shardrt/store/", "commit"),
    ("shardrt/host/committer.py", "commit"),
    ("psycopg", "commit"),
    ("shardrt/host/activity_pool.py", "activities"),
    ("shardrt/host/attempts.py", "activities"),
    ("shardrt/host/", "host"),
    ("shardrt/links/", "link"),
    ("websockets/", "link"),
    ("uvicorn/", "link"),
    ("shardrt/http/", "routing"),
    ("shardrt/cluster/", "routing"),
    ("shardrt/client/", "client"),
    ("shardrt/bench/", "load"),
    ("benchmarks/", "load"),
)
"""Part of a path, and the layer it belongs to."""
REST = "event loop"
"""No frame of a layer: reading and writing of sockets, timers, the loop itself."""


def layer_of(frames: Iterable[str]) -> str:
    """Return the layer of a stack, outermost frame first."""
    inward = [
        frame
        for each in frames
        if not any(part in (frame := each.replace("\\", "/")) for part in PROGRAMS)
    ]
    if any(CHECKPOINT[0] in frame for frame in inward):
        return CHECKPOINT[1]
    for frame in reversed(inward):
        for part, layer in LAYERS:
            if part in frame:
                return layer
    return REST


def shares(raw: str) -> dict[str, float]:
    """Return the share of each layer in stacks as py-spy writes them: `a;b;c count`."""
    counts: Counter[str] = Counter()
    for line in raw.splitlines():
        stack, _, count = line.rpartition(" ")
        if stack and count.isdecimal():
            counts[layer_of(stack.split(";"))] += int(count)
    total = counts.total()
    return {layer: count / total for layer, count in counts.most_common()} if total else {}
