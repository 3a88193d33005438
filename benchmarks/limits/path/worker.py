"""A worker of the bare path: coroutines, a socket and a group commit.

Started as `python -m benchmarks.limits.path.worker SOCKET NUMBER`, with the database's URL in the
environment. Nothing is recovered, fenced, checkpointed, looked up, bounded or counted.
"""

import asyncio
import itertools
import os
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, cast

import msgspec
import psycopg
import uvloop

from shardrt.bench.errors import check
from shardrt.bench.workloads.hello import EXPECTED, hello
from shardrt.host.committer import MANY, PACE_S
from shardrt.host.memory import settle_memory
from shardrt.links.base import Link
from shardrt.links.unix import listen_unix

if TYPE_CHECKING:
    from shardrt import OrchestrationContext

URL = "BARE_PATH_URL"
"""The environment variable with the database: no password is for the command line."""

TABLE = """
CREATE TABLE bare_path (
    worker integer NOT NULL, lsn bigint NOT NULL, record bytea NOT NULL,
    PRIMARY KEY (worker, lsn)
)
"""
INSERT = "INSERT INTO bare_path VALUES (%s, %s, %b)"

_encode = msgspec.json.Encoder().encode


class Journal:
    """Commits what gathered while the last commit was under way, as often as a shard does."""

    def __init__(self, worker: int, connection: psycopg.AsyncConnection[Any]) -> None:
        self._worker = worker
        self._connection = connection
        self._events: list[tuple[Any, ...]] = []
        self._waiters: list[asyncio.Future[None]] = []
        self._news = asyncio.Event()

    def write(self, *event: Any) -> Awaitable[None]:
        """Return what comes when the event is durable."""
        durable = asyncio.get_running_loop().create_future()
        self._events.append(event)
        self._waiters.append(durable)
        self._news.set()
        return durable

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        not_before_s = 0.0
        for lsn in itertools.count(1):
            await self._news.wait()
            if (wait_s := not_before_s - loop.time()) > 0:
                await asyncio.sleep(wait_s)
            self._news.clear()
            events, self._events = self._events, []
            waiters, self._waiters = self._waiters, []
            if len(events) >= MANY:
                not_before_s = loop.time() + PACE_S
            await self._connection.execute(INSERT, (self._worker, lsn, _encode(events)))
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)


class JournaledContext:
    """Runs an activity once it is written that it has been asked for, and after what."""

    def __init__(self, number: int, journal: Journal) -> None:
        self._number = number
        self._journal = journal
        self._last: Any = None

    async def call_activity(self, function: Callable[[Any], Awaitable[Any]], given: Any) -> Any:
        await self._journal.write(self._number, self._last, function.__name__, given)
        self._last = await function(given)
        return self._last


class Session:
    """Who asks for instances, by number, and is told when each has come to its end.

    It ends with the first that fails, so that nobody waits for that one.
    """

    def __init__(self, journal: Journal, link: Link, ended: asyncio.Event) -> None:
        self._journal = journal
        self._link = link
        self._ended = ended
        self._running: set[asyncio.Task[None]] = set()

    def on_messages(self, numbers: list[int]) -> None:
        for number in numbers:
            task = asyncio.get_running_loop().create_task(self._run(number))
            self._running.add(task)
            task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._link.close()

    async def _run(self, number: int) -> None:
        context = cast("OrchestrationContext", JournaledContext(number, self._journal))
        result = await hello(context)
        check(result, EXPECTED, str(number))
        await self._journal.write(number, result)
        self._link.send(number)

    def on_closed(self) -> None:
        for task in self._running:
            task.cancel()
        self._ended.set()


async def main(path: str, worker: int) -> None:
    """Serve one session to its end."""
    connection = await psycopg.AsyncConnection.connect(
        os.environ[URL], autocommit=True, prepare_threshold=0
    )
    journal = Journal(worker, connection)
    ended = asyncio.Event()
    server = await listen_unix(path, int, lambda link: Session(journal, link, ended))
    settle_memory()
    loop = asyncio.get_running_loop()
    tasks = {loop.create_task(journal.run()), loop.create_task(ended.wait())}
    done, left = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in left:
        task.cancel()
    await server.close()
    for task in done:
        task.result()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2])))
