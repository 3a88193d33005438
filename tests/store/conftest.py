"""The contract suite runs against all three stores; coroutine tests run on a loop each.

PostgreSQL's run on uvloop, the others' on asyncio's own loop.
"""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING

import pytest
import uvloop

from tests.store.hubs import Stores, memory_url

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(params=["memory", "sqlite", pytest.param("postgres", marks=pytest.mark.pg)])
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Stores:
    match request.param:
        case "memory":
            return Stores("memory", memory_url())
        case "sqlite":
            return Stores("sqlite", f"sqlite:///{tmp_path}/hub.db")
        case _:
            return Stores("postgres", request.getfixturevalue("hub_dsn"))


@pytest.fixture
def pg(hub_dsn: str) -> Stores:
    return Stores("postgres", hub_dsn)


@pytest.fixture
def sqlite(tmp_path: Path) -> Stores:
    return Stores("sqlite", f"sqlite:///{tmp_path}/hub.db")


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    arguments = {name: pyfuncitem.funcargs[name] for name in names}
    opened = [each for each in arguments.values() if isinstance(each, Stores)]

    async def main() -> None:
        try:
            await pyfuncitem.obj(**arguments)
        finally:
            for each in opened:
                await each.close()

    on_uvloop = any(each.kind == "postgres" for each in opened)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop if on_uvloop else None) as runner:
        runner.run(main())
    return True
