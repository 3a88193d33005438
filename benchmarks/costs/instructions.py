"""Instructions of a shard per `hello`, and cache lines that it waits for. Needs `valgrind`.

    python -m benchmarks.costs.instructions [--partitions 4 16 64 128] [--in-flight 500] [--n 500]
        [--json FILE]

Where a processor's own counters cannot be read, as in most virtual machines, it is simulated:
`lone_shard` runs under cachegrind, whose counts are the same each time, whatever else the machine
does. The difference of a short and a longer run is what one more `hello` takes. A processor may
take more time for the same instructions: that is what the comparison with CPU time shows.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.console import Console
from rich.table import Table

CACHES = ("--D1=32768,8,64", "--I1=32768,8,64", "--LL=1048576,16,64")
"""Size, ways, line: of a core, its second level last."""
LONGER = 3
WANTED = {
    "instructions": re.compile(r"I\s+refs:\s+([\d,]+)"),
    "lines_from_l2": re.compile(r"D1\s+misses:\s+([\d,]+)"),
    "lines_from_beyond": re.compile(r"LLd misses:\s+([\d,]+)"),
}
TITLES = {
    "partitions": "partitions",
    "records_each": "records",
    "instructions": "instructions",
    "of_first": "of the first",
    "lines_from_l2": "lines from L2",
    "lines_from_beyond": "lines from beyond 1 MiB",
}


def counted(valgrind: str, partitions: int, in_flight: int, n: int) -> dict[str, float]:
    """Run so many under cachegrind; return its sums, and what the shard itself counted."""
    with tempfile.TemporaryDirectory() as directory:
        tool = [valgrind, "--tool=cachegrind", "--cache-sim=yes", *CACHES]
        out = f"--cachegrind-out-file={Path(directory) / 'out'}"
        load = [sys.executable, "-m", "benchmarks.costs.lone_shard"]
        sizes = ["--partitions", partitions, "--in-flight", in_flight, "--n", n]
        ran = subprocess.run(
            [*tool, out, *load, *map(str, sizes)],
            env=os.environ | {"PYTHONHASHSEED": "0"},
            capture_output=True,
            text=True,
            check=False,
        )
    if ran.returncode:
        raise RuntimeError(f"the run failed:\n{ran.stdout[-2000:]}\n{ran.stderr[-2000:]}")
    told: dict[str, float] = json.loads(ran.stdout.splitlines()[-1])
    return sums_of(ran.stderr) | told


def sums_of(report: str) -> dict[str, float]:
    """Return the sums at the end of a report of cachegrind."""
    sums = {}
    for name, pattern in WANTED.items():
        found = pattern.search(report)
        if found is None:
            raise RuntimeError(f"cachegrind tells nothing of {name}:\n{report[-2000:]}")
        sums[name] = float(found[1].replace(",", ""))
    return sums


def each(short: Mapping[str, float], longer: Mapping[str, float], more: int) -> dict[str, float]:
    """Return what one of so many more took."""
    per = {name: round((longer[name] - short[name]) / more) for name in WANTED}
    return per | {"records_each": longer["records_each"]}


def measure(
    valgrind: str, partitions: int, in_flight: int, n: int, pool: ThreadPoolExecutor
) -> dict[str, float]:
    sizes = [in_flight + n, in_flight + LONGER * n]
    short, longer = pool.map(lambda size: counted(valgrind, partitions, in_flight, size), sizes)
    return {"partitions": partitions} | each(short, longer, (LONGER - 1) * n)


def table_of(rows: list[dict[str, float]]) -> Table:
    table = Table(box=None)
    for title in TITLES.values():
        table.add_column(title, justify="right")
    for row in rows:
        table.add_row(*(f"{row[name]:,.6g}" for name in TITLES))
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--partitions", type=int, nargs="+", default=[4, 16, 64, 128])
    parser.add_argument("--in-flight", type=int, default=500)
    parser.add_argument("--n", type=int, default=500)
    parser.add_argument("--json", type=Path, help="write the figures there, too")
    given = parser.parse_args()
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        parser.error("valgrind is not installed; Debian and Ubuntu call the package valgrind")
    rows: list[dict[str, float]] = []
    with ThreadPoolExecutor(2) as pool:
        for partitions in given.partitions:
            row = measure(valgrind, partitions, given.in_flight, given.n, pool)
            row["of_first"] = round(row["instructions"] / (rows or [row])[0]["instructions"], 3)
            rows.append(row)
    Console(width=100).print(table_of(rows))
    if given.json is not None:
        given.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
