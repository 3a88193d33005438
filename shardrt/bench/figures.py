"""Figures as they stand in the results: names carry units, numbers are rounded."""

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import shardrt
from shardrt.bench.loops import Timing
from shardrt.bench.options import Options
from shardrt.bench.postgres_stats import Counters
from shardrt.bench.processes import cpu_model

PACKAGES = ("uvloop", "orjson", "msgspec", "psycopg", "websockets", "uvicorn")
COLLECTOR = "collector"
"""Takes spans, as a process of the test: told, but not counted in the total."""
GIT_TIMEOUT_S = 10.0


def timing_figures(timing: Timing, activities: int) -> dict[str, Any]:
    """Return throughput and latency; with the activities that each instance runs."""
    per_s = len(timing.latencies) / timing.seconds
    figures: dict[str, Any] = {
        "seconds": round(timing.seconds, 3),
        "instances_per_s": round(per_s, 1),
        "latency_ms": timing.latencies.figures(),
    }
    if activities:
        figures["activities_per_s"] = round(per_s * activities, 1)
    if timing.starts_late_s:
        figures["starts_late_ms_max"] = round(timing.starts_late_s * 1000, 2)
    return figures


def cpu_figures(cpu_us: dict[str, int], n: int) -> dict[str, float]:
    figures = {role: round(used / n, 1) for role, used in sorted(cpu_us.items())}
    total = sum(used for role, used in cpu_us.items() if role != COLLECTOR)
    return figures | {"total": round(total / n, 1)}


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
    found = {"shardrt": shardrt.__version__, "python": platform.python_version()}
    if made_from := commit():
        found["commit"] = made_from
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """Return the commit that runs, if it runs from a checkout; "-dirty" tells of changes."""
    root = Path(shardrt.__file__).parents[1]
    if not (root / ".git").exists():
        return ""
    try:
        return subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty"],
            check=True,
            capture_output=True,
            text=True,
            timeout=GIT_TIMEOUT_S,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def settings(options: Options, store_url: str) -> dict[str, Any]:
    """Return how the run was set up; of the store only its kind, since the URL is secret."""
    found: dict[str, Any] = {"mode": options.mode, "warmup": options.warmup, **options.sizes}
    if options.rate is None:
        found["concurrency"] = options.concurrency
    else:
        found["rate"] = options.rate
    if options.mode != "url":
        found["shards"] = options.shards if options.mode == "serve" else 1
        found["partitions"] = options.partitions
    if options.tracing is not None:
        found["tracing"] = options.tracing
    if store_url:
        found["store"] = store_url.partition(":")[0]
    return found
