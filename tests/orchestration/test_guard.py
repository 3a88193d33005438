"""Calls that break determinism are caught in the act, and only there."""

# ruff: noqa: DTZ002, DTZ005, DTZ011, PLW1510, TID251
from __future__ import annotations

import asyncio
import datetime as dt
import importlib
import logging
import os
import random
import secrets
import socket
import subprocess
import sys
import threading
import time
import uuid
from datetime import date, datetime
from pathlib import Path
from time import time as time_by_name
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pytest

from shardrt.core.work import Parked
from shardrt.orchestration import forbidden, guard
from shardrt.orchestration.app import App
from shardrt.orchestration.executor import Executor
from tests.orchestration.harness import Instance, failure_in, reason_of, result_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from shardrt.core.work import Step
    from shardrt.orchestration.context import OrchestrationContext
    from shardrt.orchestration.ledger import Guard

HERE = Path(__file__).name


def instance_of(body: Callable[[OrchestrationContext], Any], policy: Guard = "refuse") -> Instance:
    app = App()

    @app.orchestrator
    async def flow(ctx: OrchestrationContext) -> object:
        result = body(ctx)
        return await result if asyncio.iscoroutine(result) else repr(result)

    return Instance(app, "flow", executor=Executor(app, policy))


def run(body: Callable[[OrchestrationContext], Any], policy: Guard = "refuse") -> Step:
    return instance_of(body, policy).run()


CALLS: dict[str, Callable[[OrchestrationContext], Any]] = {
    "time.time()": lambda _: time.time(),
    "time.time_ns()": lambda _: time.time_ns(),
    "time.monotonic()": lambda _: time.monotonic(),
    "time.perf_counter()": lambda _: time.perf_counter(),
    "time.sleep()": lambda _: time.sleep(0),
    "datetime.now()": lambda _: datetime.now(dt.UTC),
    "datetime.utcnow()": lambda _: getattr(dt.datetime, "utcnow")(),  # noqa: B009
    "datetime.today()": lambda _: datetime.today(),
    "date.today()": lambda _: date.today(),
    "random.random()": lambda _: random.random(),
    "random.randint()": lambda _: random.randint(1, 2),
    "random.shuffle()": lambda _: random.shuffle([1, 2]),
    "random.choice()": lambda _: random.choice("ab"),
    "secrets.token_hex()": lambda _: secrets.token_hex(),
    "uuid.uuid4()": lambda _: uuid.uuid4(),
    "uuid.uuid1()": lambda _: uuid.uuid1(),
    "os.urandom()": lambda _: os.urandom(2),
    "os.environ": lambda _: os.environ["PATH"],
    "os.listdir()": lambda _: os.listdir(),
    "open()": lambda _: Path(__file__).read_bytes(),
    "a socket": lambda _: socket.socket(),
    "socket.getaddrinfo()": lambda _: socket.getaddrinfo("127.0.0.1", 1),
    "subprocess": lambda _: subprocess.run([sys.executable, "-V"]),
    "a thread": lambda _: threading.Thread(target=print).start(),
    "os.stat()": lambda _: Path("x").exists(),
}


@pytest.mark.parametrize("called", CALLS)
def test_a_call_that_is_not_deterministic_parks_the_instance_and_names_the_line(called: str):
    reason = reason_of(run(CALLS[called]))
    line = CALLS[called].__code__.co_firstlineno
    assert reason.startswith(f"not deterministic: the code called {called} (")
    assert f"{HERE}:{line} in <lambda>); use " in reason


def test_other_ways_to_the_environment_are_caught():
    assert "os.environ" in reason_of(run(lambda _: os.getenv("PATH")))
    assert "os.environ" in reason_of(run(lambda _: os.environ.get("PATH")))
    assert "os.environ" in reason_of(run(lambda _: [*os.environ]))


def test_what_was_imported_by_name_is_caught():
    async def body(ctx: OrchestrationContext) -> float:
        return time_by_name()

    app = App()
    app.orchestrator(body)
    assert "time.time()" in reason_of(Instance(app, "body").run())


def test_what_to_use_instead_is_said():
    assert reason_of(run(lambda _: time.time())).endswith("; use ctx.current_utc_datetime")
    assert reason_of(run(lambda _: uuid.uuid4())).endswith("; use ctx.new_uuid()")


def test_nothing_of_the_turn_counts():
    async def body(ctx: OrchestrationContext) -> None:
        ctx.send_event("other", "hello")
        ctx.set_custom_status("here")
        random.random()

    step = run(body)
    assert (step.actions, step.custom_status) == ((), None)
    assert isinstance(step.outcome, Parked)


def test_catching_everything_does_not_help():
    async def body(ctx: OrchestrationContext) -> str:
        try:
            return str(time.time())
        except BaseException:  # noqa: BLE001
            return "caught"

    assert "time.time()" in reason_of(run(body))


def test_a_call_in_another_task_of_the_orchestration_counts_too():
    async def inner() -> None:
        time.time()

    async def body(ctx: OrchestrationContext) -> None:
        await asyncio.gather(asyncio.sleep(1), inner())

    assert "in test_a_call_in_another_task_of_the_orchestration_counts_too" in reason_of(run(body))


def test_a_parked_instance_goes_on_with_repaired_code():
    broken = True

    async def body(ctx: OrchestrationContext) -> str:
        await ctx.wait_for_event("go")
        return str(time.time()) if broken else "done"

    instance = instance_of(body)
    instance.run()
    assert "time.time()" in reason_of(instance.raise_event("go"))
    broken = False
    assert result_of(instance.raise_event("go")) == "done"


def test_a_call_in_code_that_is_replayed_parks_too():
    clean = True

    async def body(ctx: OrchestrationContext) -> None:
        if not clean:
            time.time()
        await ctx.wait_for_event("go")

    instance = instance_of(body)
    instance.run()
    clean = False
    reason = reason_of(instance.run(instance.raised("go"), replay=True))
    assert "time.time()" in reason


def test_a_warning_is_logged_once_and_the_code_goes_on(caplog: pytest.LogCaptureFixture):
    async def body(ctx: OrchestrationContext) -> str:
        for _ in range(3):
            time.time()
        await ctx.wait_for_event("go")
        return "done"

    instance = instance_of(body, "warn")
    instance.run()
    assert result_of(instance.run(instance.raised("go"), replay=True)) == "done"
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "time.time()" in caplog.text


def test_it_can_be_off():
    assert float(result_of(run(lambda _: time.time(), "off"))) > 0


def test_a_block_can_be_left_unguarded():
    async def body(ctx: OrchestrationContext) -> float:
        with ctx.unguarded():
            time.time()
        return time.time()

    reason = reason_of(run(body))
    assert f":{body.__code__.co_firstlineno + 3} in " in reason


def test_imports_and_logging_and_time_zones_are_nobodys_fault(caplog: pytest.LogCaptureFixture):
    async def body(ctx: OrchestrationContext) -> str:
        sys.modules.pop("this_is_imported_inside", None)
        importlib.import_module("colorsys")
        import cmd  # noqa: F401, PLC0415

        ctx.logger.warning("hello")
        logging.getLogger("x").warning("there")
        return str(ctx.current_utc_datetime.astimezone(ZoneInfo("Europe/Berlin")).tzinfo)

    for name in ("colorsys", "cmd"):
        sys.modules.pop(name, None)
    ZoneInfo.clear_cache()
    assert result_of(run(body)) == "Europe/Berlin"
    assert len(caplog.records) == 2


def test_a_failure_with_a_traceback_is_told_as_ever():
    async def body(ctx: OrchestrationContext) -> None:
        raise ValueError("no")

    assert failure_in(run(body)).message == "no"


def test_the_context_offers_what_is_forbidden_elsewhere():
    async def body(ctx: OrchestrationContext) -> list[str]:
        loop = asyncio.get_running_loop()
        return [
            str(each)
            for each in (ctx.new_uuid(), ctx.random.random(), loop.time(), random.Random(3))
        ]

    assert len(result_of(run(body))) == 4


def test_outside_of_turns_nothing_is_refused():
    guard.install()
    threads = [threading.Thread(target=time.time)]

    async def host() -> None:
        assert time.time() > 0
        assert datetime.now(dt.UTC).tzinfo is dt.UTC
        assert os.environ["PATH"]
        threads[0].start()
        threads[0].join()

    asyncio.run(host())


def test_a_turn_does_not_disturb_other_threads():
    told: list[float] = []
    go, done = threading.Event(), threading.Event()

    def other() -> None:
        go.wait(5)
        told.append(time.time())
        done.set()

    thread = threading.Thread(target=other)
    thread.start()

    def body(_: object) -> str:
        go.set()
        return str(done.wait(5))

    assert result_of(run(body)) == "'True'"
    thread.join()
    assert len(told) == 1


def test_what_is_replaced_stays_what_it_was():
    guard.install()

    class Clock:
        read: Any = time.monotonic

    assert Clock().read() > 0
    assert time.time.__name__ == "time"

    class Mine(datetime):
        pass

    assert type(Mine.now()) is Mine
    assert type(datetime.now()) is datetime
    assert type(Mine.today()) is Mine
    assert datetime.now(tz=dt.UTC).tzinfo is dt.UTC


def test_every_name_exists_or_did_in_some_python():
    missing = {"uuid.uuid6", "uuid.uuid7"}
    for name in forbidden.FUNCTIONS:
        module, _, attribute = name.rpartition(".")
        assert name in missing or hasattr(importlib.import_module(module), attribute), name
