"""CPU and memory of processes, as the kernel counts them.

Linux tells both in /proc; elsewhere `ps` does, with less resolution.
"""

import contextlib
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
TICK_US = 1_000_000 // os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Process:
    """A process at one moment."""

    pid: int
    parent: int
    command: str
    cpu_us: int
    """User and system time so far, of all its threads."""


def snapshot() -> dict[int, Process]:
    """Return all processes that are visible to us, by id."""
    processes = _from_proc() if PROC.joinpath("self/stat").exists() else _from_ps()
    return {process.pid: process for process in processes}


def descendants(processes: dict[int, Process], root: int) -> list[Process]:
    """Return the process `root` and all below it."""
    children: dict[int, list[int]] = {}
    for process in processes.values():
        children.setdefault(process.parent, []).append(process.pid)
    found, queue = [], [root]
    while queue:
        pid = queue.pop()
        if pid in processes:
            found.append(processes[pid])
            queue += children.get(pid, [])
    return found


def memory_bytes(pid: int) -> int:
    """Return the memory of a process; what it shares is split among those who share it."""
    with contextlib.suppress(OSError, StopIteration):
        lines = PROC.joinpath(str(pid), "smaps_rollup").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("Pss:")).split()[1]) * 1024
    with contextlib.suppress(OSError, ValueError, subprocess.CalledProcessError):
        return int(_ps("-o", "rss=", "-p", str(pid)).strip()) * 1024
    return 0


def _from_proc() -> list[Process]:
    found = []
    for entry in PROC.iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                found.append(_read_proc(int(entry.name), entry))
    return found


def _read_proc(pid: int, entry: Path) -> Process:
    # The name, in parentheses, may contain anything; the numbers follow the last one.
    numbers = entry.joinpath("stat").read_text().rpartition(")")[2].split()
    command = entry.joinpath("cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    cpu_us = (int(numbers[11]) + int(numbers[12])) * TICK_US
    # The exact figure leaves out threads that have ended.
    return Process(pid, int(numbers[1]), command, max(cpu_us, _schedstat_us(entry)))


def _schedstat_us(entry: Path) -> int:
    """Return the CPU time of all living threads in full resolution, or 0 if it is not told."""
    total_ns = 0
    with contextlib.suppress(OSError, ValueError, IndexError):
        for thread in entry.joinpath("task").iterdir():
            total_ns += int(thread.joinpath("schedstat").read_text().split()[0])
        return total_ns // 1000
    return 0


def _from_ps() -> list[Process]:
    found = []
    for line in _ps("-A", "-o", "pid=,ppid=,time=,command=").splitlines():
        pid, parent, time, command = line.split(maxsplit=3)
        found.append(Process(int(pid), int(parent), command, clock_us(time)))
    return found


def clock_us(text: str) -> int:
    """Return `[[dd-]hh:]mm:ss[.cc]` as microseconds."""
    days, _, clock = text.rpartition("-")
    seconds = 0.0
    for part in clock.split(":"):
        seconds = seconds * 60 + float(part)
    return int((int(days or 0) * 86_400 + seconds) * 1_000_000)


def _ps(*arguments: str) -> str:
    return subprocess.run(["ps", *arguments], check=True, capture_output=True, text=True).stdout


def cpu_model() -> str:
    """Return the name of the processor."""
    if sys.platform == "darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    with contextlib.suppress(OSError):
        for line in PROC.joinpath("cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return "unknown"
