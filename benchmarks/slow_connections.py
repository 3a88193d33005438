"""What those who open connections and say nothing cost everybody else.

    shardrt serve &
    python -m benchmarks.slow_connections [--url http://127.0.0.1:8520] [--slow 2000] [--n 1000]

Starts instances of `hello` from a few healthy clients: alone, and again while that many
connections are held open, each with the beginning of a header to which a byte is added every few
seconds; who is let go comes back. Prints p50 and p99 of both, and how often they were let go.
"""

import argparse
import asyncio
import json
import time
from contextlib import suppress
from urllib.parse import urlsplit

from shardrt.client import Client

WORKERS = 8
DRIP_S = 3.0
RETURN_S = 1.0


async def healthy(url: str, count: int) -> list[float]:
    """Start instances, and return how long each took, in ms, in order."""
    taken: list[float] = []

    async def work() -> None:
        async with await Client.connect(url, connect_timeout_s=30) as client:
            while len(taken) < count:
                began = time.perf_counter()
                await client.start("hello", "Ada")
                taken.append((time.perf_counter() - began) * 1000)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(WORKERS):
            tasks.create_task(work())
    return sorted(taken)


async def slow(host: str, port: int, open_: set[int], let_go: list[int], number: int) -> None:
    """Hold a connection open, and come back when it is closed."""
    while True:
        with suppress(OSError):
            _, writer = await asyncio.open_connection(host, port)
            open_.add(number)
            with suppress(OSError):
                writer.write(b"GET /runtime/orchestrations HTTP/1.1\r\nX-Slow: ")
                while not writer.is_closing():
                    await asyncio.sleep(DRIP_S)
                    writer.write(b"x")
                    await writer.drain()
            writer.close()
        open_.discard(number)
        let_go.append(number)
        await asyncio.sleep(RETURN_S)


def told(taken: list[float]) -> dict[str, float]:
    return {f"p{q}_ms": round(taken[len(taken) * q // 100], 2) for q in (50, 99)}


async def run(url: str, count: int, n: int) -> None:
    parts = urlsplit(url)
    assert parts.hostname
    assert parts.port
    await healthy(url, n // 5)  # to warm up
    alone = told(await healthy(url, n))
    open_: set[int] = set()
    let_go: list[int] = []
    async with asyncio.TaskGroup() as tasks:
        slow_ones = [
            tasks.create_task(slow(parts.hostname, parts.port, open_, let_go, number))
            for number in range(count)
        ]
        async with asyncio.timeout(60):
            while len(open_) < count * 0.9:  # noqa: ASYNC110 - once, before anything is measured
                await asyncio.sleep(0.05)
        beside = told(await healthy(url, n))
        held = len(open_)
        for each in slow_ones:
            each.cancel()
    ratio = round(beside["p99_ms"] / alone["p99_ms"], 2)
    print(json.dumps({"alone": alone, "beside": beside, "held": held, "p99_ratio": ratio}))
    print(json.dumps({"let_go": len(let_go)}))


def main() -> None:
    raw = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--url", default="http://127.0.0.1:8520")
    parser.add_argument("--slow", type=int, default=2000)
    parser.add_argument("--n", type=int, default=1000)
    given = parser.parse_args()
    asyncio.run(run(given.url, given.slow, given.n))


if __name__ == "__main__":
    main()
