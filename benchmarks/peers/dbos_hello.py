"""DBOS: five steps in a row; executor processes that each run and start their own workflows.

Settings tried and found best on two cores: three processes of two threads, sync steps, started
directly rather than through a queue. Runs in the peers' environment; DATABASE_URL is a
Postgres to throw away.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from dbos import DBOS

CITIES = ("Tokyo", "Seattle", "London", "Amsterdam", "Mumbai")
EXPECTED = [f"Hello {city}!" for city in CITIES]
EXECUTORS = 3
THREADS = 2
WARMUP_SHARE = 10


def _say_hello(city: str) -> str:
    return f"Hello {city}!"


say_hello = DBOS.step()(_say_hello)


def _hello() -> list[str]:
    return [say_hello(city) for city in CITIES]


hello = DBOS.workflow()(_hello)


def executor(name: str) -> None:
    """Run as many workflows as each line on stdin says; answer with a line of latencies."""
    DBOS(
        config={
            "name": "hello",
            "system_database_url": os.environ["DATABASE_URL"],
            "executor_id": name,
            "application_version": "1",
            "log_level": "ERROR",
            "run_admin_server": False,
        }
    )
    DBOS.launch()
    print("ready", flush=True)
    for line in sys.stdin:
        n, threads = map(int, line.split())
        with ThreadPoolExecutor(threads) as pool:
            print(json.dumps(list(pool.map(run_one, range(n)))), flush=True)
    DBOS.destroy()


def run_one(_: int) -> float:
    start_s = time.perf_counter()
    assert hello() == EXPECTED
    return time.perf_counter() - start_s


class Executor:
    """A process that runs `executor`."""

    def __init__(self, name: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--executor", name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._line() == "ready"

    def ask(self, n: int, threads: int = THREADS) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{n} {threads}\n")
        self._process.stdin.flush()

    def answer(self) -> list[float]:
        found: list[float] = json.loads(self._line())
        return found

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def all_run(executors: list[Executor], n: int) -> None:
    for each in executors:
        each.ask(n // len(executors))
    for each in executors:
        each.answer()


def main(n: int, alone: int) -> None:
    # One after the other: the first makes the tables.
    executors = [Executor(f"executor-{number}") for number in range(EXECUTORS)]
    n -= n % EXECUTORS
    all_run(executors, max(EXECUTORS, n // WARMUP_SHARE))
    print("begin", flush=True)
    start_s = time.perf_counter()
    all_run(executors, n)
    print("end", json.dumps({"n": n, "seconds": time.perf_counter() - start_s}), flush=True)
    executors[0].ask(alone, 1)
    ordered = sorted(executors[0].answer())
    print("alone", json.dumps({"p50_ms": ordered[len(ordered) // 2] * 1000}), flush=True)
    for each in executors:
        each.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--alone", type=int, default=100)
    parser.add_argument("--executor")
    given = parser.parse_args()
    if given.executor:
        executor(given.executor)
    else:
        main(given.n, given.alone)
