"""Values of all kinds through a whole host, and what does not fit."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from typing import Any, Generic, NamedTuple, TypedDict, TypeVar

import httpx
import pytest

from shardrt import App, OrchestrationContext, Runtime
from shardrt.errors import InputInvalid

T = TypeVar("T")
E = TypeVar("E")
app = App()


class Color(Enum):
    RED = "red"


class Point(NamedTuple):
    x: int
    y: Decimal


class Extras(TypedDict):
    raw: bytes


@dataclass
class Result(Generic[T, E]):
    value: T | None = None
    error: E | None = None


@dataclass
class Everything:
    big: int
    amount: Decimal
    color: Color
    points: tuple[Point, ...]
    extras: Extras
    result: Result[Point, Color]


EVERYTHING = Everything(
    10**40,
    Decimal("0.10"),
    Color.RED,
    (Point(1, Decimal("2.50")),),
    {"raw": b"\x00\xff"},
    Result(error=Color.RED),
)


@app.activity
async def same(everything: Everything) -> Everything:
    return everything


@app.activity
def wrapped(everything: Everything) -> Result[Everything, str] | Color:
    return Result(value=everything)


@app.orchestrator
async def through(ctx: OrchestrationContext, everything: Everything) -> Result[Everything, str]:
    found = await ctx.call_activity(wrapped, await ctx.call_activity(same, everything))
    assert isinstance(found, Result)
    assert found.value == everything
    return found


@app.orchestrator
async def approved(ctx: OrchestrationContext) -> list[str]:
    heard: list[str] = []
    while not heard or heard[-1] != "True":
        try:
            heard.append(str(await ctx.wait_for_event("approval", bool)))
        except InputInvalid as error:
            heard.append(str(error))
    return heard


def test_values_of_all_kinds_come_back_as_they_were() -> None:
    async def main() -> None:
        async with Runtime(app, partitions=2) as runtime:
            handle = await runtime.client.start(through, EVERYTHING)
            assert await handle.result(timeout=10) == Result(value=EVERYTHING)

    asyncio.run(main())


def test_a_start_that_does_not_fit_is_refused_with_place_and_reason() -> None:
    wrong: dict[str, Any] = {"big": 1, "amount": "1", "color": "blue"}

    async def main() -> None:
        async with Runtime(app, partitions=2) as runtime:
            with pytest.raises(InputInvalid) as caught:
                await runtime.client.start("through", wrong, instance_id="a")
            transport = httpx.ASGITransport(runtime.asgi())
            async with httpx.AsyncClient(transport=transport, base_url="http://here") as http:
                body = {"input": wrong, "instanceId": "a"}
                answer = await http.post("/runtime/orchestrations/start/through", json=body)
            expected = "input of orchestrator 'through': Invalid enum value 'blue' - at `$.color`"
            assert str(caught.value) == expected
            assert (answer.status_code, answer.json()["message"]) == (400, expected)
            assert await runtime.client.get("a") is None

    asyncio.run(main())


def test_an_event_that_does_not_fit_is_told_to_its_waiter() -> None:
    async def main() -> None:
        async with Runtime(app, partitions=2) as runtime:
            handle = await runtime.client.start(approved)
            await handle.raise_event("approval", "perhaps")
            await handle.raise_event("approval", True)
            assert await handle.result(timeout=10) == [
                "event 'approval': Expected `bool`, got `str`",
                "True",
            ]

    asyncio.run(main())
