"""Figures as they stand in the report: names carry units, numbers are rounded."""

import math
import os
import platform
from importlib import metadata
from typing import Any

from benchmarks.closed_loop import Timing
from benchmarks.options import Options
from benchmarks.postgres_stats import Counters
from benchmarks.processes import cpu_model
from shardrt import __version__

PACKAGES = ("uvloop", "orjson", "msgspec", "psycopg", "websockets", "uvicorn")


def quantile(ordered: list[float], q: float) -> float:
    """Return the smallest value that at least the share `q` of all does not exceed."""
    return ordered[max(0, math.ceil(q * len(ordered)) - 1)]


def latency_figures(latencies_s: list[float]) -> dict[str, float]:
    ordered = sorted(latencies_s)
    shares = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
    return {name: round(quantile(ordered, q) * 1000, 2) for name, q in shares.items()}


def timing_figures(timing: Timing, activities: int) -> dict[str, Any]:
    per_s = len(timing.latencies_s) / timing.seconds
    return {
        "seconds": round(timing.seconds, 3),
        "instances_per_s": round(per_s, 1),
        "activities_per_s": round(per_s * activities, 1),
        "latency_ms": latency_figures(timing.latencies_s),
    }


def cpu_figures(cpu_us: dict[str, int], n: int) -> dict[str, float]:
    figures = {role: round(used / n, 1) for role, used in sorted(cpu_us.items())}
    return figures | {"total": round(sum(cpu_us.values()) / n, 1)}


def store_figures(used: Counters, n: int) -> dict[str, float]:
    return {
        "commits": round(used.commits / n, 3),
        "rows": round(used.rows / n, 2),
        "wal_bytes": round(used.wal_bytes / n),
    }


def machine() -> dict[str, Any]:
    usable = getattr(os, "sched_getaffinity", None)
    return {
        "cpu": cpu_model(),
        "cores": len(usable(0)) if usable else os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": f"{platform.system()} {platform.release()}",
    }


def versions() -> dict[str, str]:
    found = {"shardrt": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def settings(options: Options, store_url: str) -> dict[str, Any]:
    """Return how the run was set up; of the store only its kind, since the URL is secret."""
    return {
        "mode": "url" if options.url else options.mode,
        "concurrency": options.concurrency,
        "warmup": options.warmup,
        "shards": options.shards if options.mode == "serve" else 1,
        "partitions": options.partitions,
        "store": store_url.partition(":")[0],
    }
