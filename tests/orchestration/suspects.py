"""Orchestrators for the static check: what is marked with ``# found: …`` is to be found."""

# mypy: ignore-errors
# ruff: noqa
from __future__ import annotations

import asyncio
import datetime as dt
import os
import random
import socket
import subprocess
import threading
import time
import types
import uuid
from datetime import date, datetime
from os import environ
from random import randint
from time import time as now
from urllib.request import urlopen

from shardrt.orchestration.app import App
from shardrt.orchestration.context import OrchestrationContext
from tests.orchestration.harness import started as foreign

foreign_library = types.ModuleType("foreign_library")
foreign_library.connect = foreign_library.pages = foreign_library.load = print
CLIENT = type("Client", (), {"__module__": "foreign_library"})()
app = App()
COUNTS: dict[str, int] = {}
NAMES = {"a", "b"}
TOTAL = 0


class Settings:
    limit = 1


@app.activity
async def charge(amount: int) -> int:
    return int(time.time()) + random.randint(1, amount)  # activities may


@app.orchestrator
async def clocks(ctx: OrchestrationContext) -> None:
    time.time()  # found: time.time
    now()  # found: time.time
    time.sleep(1)  # found: time.sleep
    datetime.now(dt.UTC)  # found: datetime.datetime.now
    dt.datetime.utcnow()  # found: datetime.datetime.utcnow
    date.today()  # found: datetime.date.today
    time.gmtime()  # found: time.gmtime()
    time.gmtime(0)
    datetime.fromtimestamp(0)
    key = time.monotonic  # found: time.monotonic


@app.orchestrator
async def chance(ctx: OrchestrationContext) -> None:
    random.random()  # found: random.random
    randint(1, 2)  # found: random.randint
    random.Random()  # found: random.Random()
    random.Random(3).random()
    uuid.uuid4()  # found: uuid.uuid4
    uuid.uuid5(uuid.NAMESPACE_DNS, "x")
    ctx.random.random()
    os.urandom(3)  # found: os.urandom
    import secrets

    secrets.token_hex()  # found: secrets.token_hex


@app.orchestrator(name="outside", version="2")
async def outside(ctx: OrchestrationContext) -> None:
    os.environ["A"]  # found: os.environ
    environ.get("A")  # found: os.environ
    os.getenv("A")  # found: os.getenv
    with open("x") as file:  # found: open
        file.read()
    socket.socket()  # found: socket.socket()
    threading.Thread(target=print).start()  # found: threading.Thread
    await asyncio.to_thread(print)  # found: asyncio.to_thread
    urlopen("x")  # found: urllib.request.urlopen()
    try:
        subprocess.run(["x"])  # found: subprocess.run()
    except subprocess.CalledProcessError:
        raise
    time.time()  # shardrt: allow
    with ctx.unguarded():
        time.time()


@app.orchestrator
async def helped(ctx: OrchestrationContext) -> None:
    await helper(ctx)
    await asyncio.gather(helper(ctx), other(ctx))


async def helper(ctx: OrchestrationContext) -> None:
    def inner() -> float:
        return time.time()  # found: time.time

    inner()


async def other(ctx: OrchestrationContext) -> None:
    await ctx.call_activity(charge, 1)
    await charge(1)  # found: activity charge is called directly
    await foreign(ctx)
    await asyncio.open_connection("x", 1)  # found: asyncio.open_connection


@app.orchestrator
async def sets(ctx: OrchestrationContext) -> None:
    for each in {"a", "b"}:  # found: iteration over a set
        print(each)
    names = set("abc")
    for each in names:  # found: iteration over a set
        print(each)
    for each in sorted(names):
        print(each)
    [each for each in NAMES]  # found: iteration over a set
    sum(len(each) for each in names)
    list(names | {"d"})  # found: iteration over a set
    await asyncio.gather(*{ctx.call_activity(charge, 1)})
    tasks = {asyncio.create_task(helper(ctx)) for _ in range(2)}
    done, rest = await asyncio.wait(tasks)
    for task in rest:
        task.cancel()
    for task in tasks:
        task.cancel()
    {each for each in names}
    names.pop()  # found: iteration over a set


@app.orchestrator
async def state(ctx: OrchestrationContext) -> None:
    global TOTAL
    TOTAL += 1  # found: write to TOTAL
    COUNTS["x"] = 1  # found: write to COUNTS
    COUNTS.update(y=2)  # found: write to COUNTS
    NAMES.add("c")  # found: write to NAMES
    Settings.limit = 2  # found: write to Settings
    mine = {}
    mine["x"] = 1
    mine.update(COUNTS)
    del COUNTS["x"]  # found: write to COUNTS


class Lamp:
    on = False


LAMP = Lamp()


@app.orchestrator
async def more(ctx: OrchestrationContext, given: set[str]) -> None:
    global TOTAL
    tasks: set[asyncio.Task] = set()
    import os.path as paths

    async with foreign_library.connect() as connection:  # found: await of foreign_library.connect
        print(connection)
    async for each in foreign_library.pages():  # found: await of foreign_library.pages
        print(each)
    await foreign_library.load()  # found: await of foreign_library.load
    await CLIENT.get()  # found: await of CLIENT.get
    for each in given:  # found: iteration over a set
        print(each)
    for each in tasks:
        print(each)
    limit: int = random.randint(1, 2)  # found: random.randint
    TOTAL, rest = 1, 2  # found: write to TOTAL
    LAMP.on = True  # found: write to LAMP
    {each: 1 for each in frozenset("ab")}  # found: iteration over a set
    (each for each in given.union({"x"}))  # found: iteration over a set
    later: set[str] = {"a"}
    ",".join(later)  # found: iteration over a set
    sorted(each for each in later)
    print(*later)  # found: iteration over a set
    waiting = {ctx.call_activity(charge, 1)}
    await asyncio.wait(waiting)
    list(waiting)
    paths.join("a", "b")
    ctx.call_activity(charge, 1)  # found: ctx.call_activity(…) is not awaited
    ctx.send_event("other", "news")

    async def inner() -> None:
        os.getenv("A")  # found: os.getenv

    await inner()
    asyncio.create_task(inner())
    try:
        print(limit)
    except OSError as error:
        print(error, uuid.uuid1())  # found: uuid.uuid1
    (lambda: 1)()
    [print][0]()


def not_called() -> float:
    return time.time()
