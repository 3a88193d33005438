"""CPU-bound activities of an embedded runtime."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

import pytest

from shardrt import ActivityContext, App, OrchestrationContext, RetryPolicy, Runtime
from shardrt.errors import ConfigInvalid

if TYPE_CHECKING:
    from pathlib import Path

app = App()


@app.activity(executor="process", retry=RetryPolicy(max_attempts=2, first_interval=0.0))
def dies_once(ctx: ActivityContext, number: int) -> int:
    if ctx.attempt == 1:
        os._exit(1)
    return number * number


@app.orchestrator
async def squared(ctx: OrchestrationContext, number: int) -> int:
    return await ctx.call_activity(dies_once, number)


@pytest.mark.proc
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_a_worker_that_dies_is_one_failed_attempt(kind: str, tmp_path: Path):
    store = "memory://" if kind == "memory" else f"sqlite:///{tmp_path}/hub.db"

    async def main() -> None:
        async with Runtime(app, store=store, partitions=2) as runtime:
            handle = await runtime.client.start(squared, 9)
            assert await handle.result(timeout=30) == 81

    asyncio.run(main())


class Backwards:
    """The text that is stored is never the one that is meant."""

    def encode(self, data: bytes) -> bytes:
        return data[::-1]

    def decode(self, data: bytes) -> bytes:
        return data[::-1]


secret = App(payload_codec=Backwards())


@secret.activity(executor="process", retry=RetryPolicy(max_attempts=2, first_interval=0.0))
def resumes(ctx: ActivityContext, name: str) -> list[Any]:
    if ctx.attempt == 1:
        ctx.heartbeat({"told": name})
        raise OSError
    return [name, ctx.heartbeat_details]


@secret.orchestrator
async def resumed(ctx: OrchestrationContext, name: str) -> list[Any]:
    return await ctx.call_activity(resumes, name)


@pytest.mark.proc
def test_payloads_are_sealed_and_opened_in_workers():
    async def main() -> None:
        async with Runtime(secret, partitions=2) as runtime:
            handle = await runtime.client.start(resumed, "ann")
            assert await handle.result(timeout=30) == ["ann", {"told": "ann"}]

    asyncio.run(main())


def test_an_app_that_no_other_process_can_import_is_refused_at_once():
    local = App()

    @local.activity(executor="process")
    def crunch() -> None: ...

    with pytest.raises(ConfigInvalid, match=r"\(crunch\) need an app that worker processes can"):
        asyncio.run(Runtime(local).__aenter__())
