"""With a payload codec nothing readable leaves user code."""

from __future__ import annotations

import asyncio
import sqlite3
import zlib
from typing import TYPE_CHECKING, Any

import pytest
from msgspec import Raw

from shardrt import App, Client, OrchestrationContext, Runtime
from shardrt.core.history import NULL, Status
from shardrt.errors import InputInvalid
from shardrt.orchestration.sealing import PREFIX, Sealer
from tests.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "attack at dawn"


class Swapped:
    """Enough for a test: a real codec would encrypt."""

    def __init__(self, key: int = 0x55) -> None:
        self._key = key

    def encode(self, data: bytes, /) -> bytes:
        return bytes(each ^ self._key for each in zlib.compress(data))

    def decode(self, data: bytes, /) -> bytes:
        return zlib.decompress(bytes(each ^ self._key for each in data))


def app_of(codec: Swapped | None) -> App:
    app = App(payload_codec=codec)

    @app.activity
    async def echo(text: str) -> str:
        return text

    @app.activity
    def echo_in_thread(text: str) -> str:
        return text

    @app.orchestrator
    async def kid(ctx: OrchestrationContext, text: str) -> list[str]:
        return [text]

    @app.orchestrator
    async def flow(ctx: OrchestrationContext, text: str) -> list[Any]:
        ctx.set_custom_status(text)
        found = [await ctx.call_activity(echo, text), await ctx.call_activity(echo_in_thread, text)]
        found += await ctx.call_sub_orchestrator(kid, text)
        found.append(await ctx.wait_for_event("more", str))
        if len(text) < 100:
            ctx.continue_as_new(text * 10)
        return found

    return app


def test_a_payload_is_opened_as_it_was_and_null_is_left_alone():
    sealer = Sealer(Swapped())
    sealed = sealer.seal(Raw(b'{"a":1}'))
    assert bytes(sealed).startswith(PREFIX)
    assert bytes(sealer.open(sealed)) == b'{"a":1}'
    assert sealer.seal(NULL) == NULL
    assert bytes(sealer.open(Raw(b'"plain"'))) == b'"plain"'
    with pytest.raises(InputInvalid, match="cannot be opened: error: Error -3"):
        Sealer(Swapped(1)).open(sealed)


def test_nothing_readable_is_stored(tmp_path: Path) -> None:
    file = tmp_path / "hub.db"

    async def main() -> None:
        app = app_of(Swapped())
        async with Runtime(app, store=f"sqlite:///{file}", partitions=2) as runtime:
            client = runtime.client
            handle = await client.start("flow", SECRET, instance_id="a")
            await handle.raise_event("more", SECRET)
            await handle.raise_event("more", SECRET)
            result = await handle.result(timeout=10)
            assert result == [SECRET * 10] * 3 + [SECRET]
            status = await client.get("a", history=True)
            assert status is not None
            assert (status.input, status.output) == (SECRET * 10, result)
            assert status.custom_status == SECRET * 10
            assert status.history is not None
            assert SECRET * 10 in [each.input for each in status.history]

            async def listed() -> bool:
                return [each.input async for each in client.list(name="flow")] == [SECRET * 10]

            await eventually(listed)
            plain = Client(client._session)
            seen = await plain.get("a")
            assert seen is not None
            assert seen.input.startswith("shardrt:sealed:")
            assert await client.execute("kid", SECRET) == [SECRET]

    asyncio.run(main())
    database = sqlite3.connect(file)
    dump = "\n".join(
        str(row)
        for (table,) in database.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table'"
        ).fetchall()
        for row in database.execute(f'SELECT * FROM "{table}"')
    )
    database.close()
    assert "shardrt:sealed:" in dump
    assert SECRET not in dump


def test_plain_input_from_outside_is_taken_and_what_cannot_be_opened_is_not() -> None:
    async def main() -> None:
        async with Runtime(app_of(Swapped()), partitions=2) as runtime:
            plain = Client(runtime.client._session)
            handle = await plain.start("kid", "readable")
            assert await runtime.client.handle(handle.instance_id).result(timeout=10) == [
                "readable"
            ]
            assert (await plain.execute("kid", "readable")).startswith("shardrt:sealed:")
            wrong = Client(runtime.client._session, Swapped(1))
            with pytest.raises(InputInvalid, match="cannot be opened"):
                await wrong.start("kid", "x", instance_id="b")
            assert await runtime.client.get("b") is None

    asyncio.run(main())


def test_an_instance_whose_payloads_cannot_be_opened_is_parked(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/hub.db"

    async def main() -> None:
        async with Runtime(app_of(Swapped()), store=store, partitions=2) as runtime:
            await runtime.client.start("flow", "x" * 100, instance_id="a")

            async def waits() -> bool:
                events = await runtime.client.history("a")
                return "SubOrchestrationInstanceCompleted" in [each.kind for each in events]

            await eventually(waits)
        async with Runtime(app_of(Swapped(1)), store=store, partitions=2) as runtime:
            plain = Client(runtime.client._session)
            await plain.raise_event("a", "more", "now")

            async def reason() -> str:
                status = await plain.get("a")
                return "" if status is None else status.reason

            await eventually(reason)
            assert (await reason()).startswith("a sealed payload cannot be opened")
        async with Runtime(app_of(Swapped()), store=store, partitions=2) as runtime:
            await runtime.client.handle("a").result(timeout=10)
            status = await runtime.client.get("a")
            assert status is not None
            assert status.status is Status.COMPLETED

    asyncio.run(main())
