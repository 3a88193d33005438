"""Typed values: what comes out is what went in, also after it was in a store."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Generic, NamedTuple, TypeVar
from uuid import UUID

from shardrt import App, OrchestrationContext
from tests.matrix.stage import PATIENCE_S, Stage, scenario

app = App()
T = TypeVar("T")


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Point(NamedTuple):
    x: int
    y: Decimal


@dataclass(frozen=True)
class Box(Generic[T]):
    content: T


@dataclass(frozen=True)
class Parcel:
    colour: Colour
    points: list[Point]
    when: datetime
    day: date
    takes: timedelta
    key: UUID
    raw: bytes
    inner: Box[Decimal] | None
    big: int = 2**80


PARCEL = Parcel(
    colour=Colour.BLUE,
    points=[Point(1, Decimal("0.10"))],
    when=datetime(2030, 1, 2, 3, 4, 5, 6, tzinfo=UTC),
    day=date(2030, 1, 2),
    takes=timedelta(days=1, microseconds=7),
    key=UUID(int=2**127 + 1),
    raw=b"\x00\xff",
    inner=Box(Decimal("1E-9")),
)


@app.activity
async def unpack(parcel: Parcel) -> Parcel:
    assert parcel == PARCEL
    return parcel


@app.orchestrator
async def forward(ctx: OrchestrationContext, parcel: Parcel) -> list[Parcel]:
    unpacked = await ctx.call_activity(unpack, parcel)
    return [parcel, unpacked, await ctx.wait_for_event("parcel", Parcel)]


@scenario()
async def values_keep_their_types(stage: Stage) -> None:
    await stage.client.start(forward, PARCEL, instance_id=stage.id())
    await stage.middle()
    await stage.client.raise_event(stage.id(), "parcel", PARCEL)
    handle = stage.client.handle(stage.id(), forward)
    assert await handle.result(timeout=PATIENCE_S) == [PARCEL] * 3
