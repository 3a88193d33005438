"""Types from end to end: what goes in, what activities return, and what comes out.

    python -m shardrt.samples quote '{"due": "2030-01-31", "items": [["pen", "1.20", 3]]}'

All of it is JSON on its way and checked by its annotation where it arrives; what does not fit is
refused at the start. A business failure is a result here, not an exception, with a type.
"""

from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from enum import Enum
from typing import Generic, NamedTuple, TypeVar

from shardrt import App, OrchestrationContext

app = App()
T = TypeVar("T")


class Currency(Enum):
    """What prices are in."""

    EUR = "EUR"
    NOK = "NOK"


class Item(NamedTuple):
    """An array in JSON."""

    sku: str
    price: Decimal
    quantity: int


@dataclass(frozen=True)
class Request:
    """What somebody wants to have quoted."""

    due: date
    items: list[Item]
    currency: Currency = Currency.EUR


@dataclass(frozen=True)
class Ok(Generic[T]):
    """It went well, with this."""

    value: T


@dataclass(frozen=True)
class Refused:
    """It did not, for this reason."""

    reason: str


@dataclass(frozen=True)
class Quote:
    """An offer; the price is exact."""

    total: Decimal
    currency: Currency
    valid_until: date


@app.activity
async def add_up(request: Request) -> Ok[Decimal] | Refused:
    if not request.items:
        return Refused("there is nothing to quote")
    return Ok(sum((item.price * item.quantity for item in request.items), Decimal()))


@app.orchestrator
async def quote(ctx: OrchestrationContext, request: Request) -> Ok[Quote] | Refused:
    total = await ctx.call_activity(add_up, request)
    if isinstance(total, Refused):
        return total
    return Ok(Quote(total.value, request.currency, request.due))
