"""Many wait for one answer."""

from __future__ import annotations

import asyncio

import pytest
from msgspec import Raw

from shardrt.client.shared import Shared
from shardrt.errors import ConnectionLost

ANSWER = Raw(b"1")


async def waiting(shared: Shared, count: int) -> list[asyncio.Task[Raw]]:
    loop = asyncio.get_running_loop()
    waits = [loop.create_task(shared.wait(loop)) for _ in range(count)]
    await asyncio.sleep(0)
    return waits


def test_all_get_the_answer_but_who_was_cancelled():
    async def main() -> None:
        shared = Shared()
        one, two, three = await waiting(shared, 3)
        two.cancel()
        await asyncio.wait([two])
        assert not shared.done()
        shared.set_result(ANSWER)
        assert shared.done()
        assert [await one, await three] == [ANSWER, ANSWER]
        assert two.cancelled()

    asyncio.run(main())


def test_who_is_cancelled_in_the_moment_of_the_answer_is_cancelled():
    async def main() -> None:
        shared = Shared()
        one, two = await waiting(shared, 2)
        shared.set_result(ANSWER)
        one.cancel()
        await asyncio.wait([one, two])
        assert one.cancelled()
        assert two.result() == ANSWER

    asyncio.run(main())


def test_who_was_cancelled_and_has_not_run_yet_is_not_told():
    async def main() -> None:
        shared = Shared()
        one, two = await waiting(shared, 2)
        one.cancel()
        shared.set_exception(ConnectionLost("gone"))
        await asyncio.wait([one, two])
        assert one.cancelled()
        with pytest.raises(ConnectionLost, match="gone"):
            two.result()

    asyncio.run(main())
