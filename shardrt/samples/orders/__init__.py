"""An order from validation to shipping, undone where something goes wrong on the way.

    python -m shardrt.samples.orders [FILE]

processes a file with one order per line (by default the `orders.jsonl` that is beside this
module). The activities only pretend: a card that ends in 0000 is declined, every third card
needs a second attempt, and no courier goes to Atlantis.
"""

from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from shardrt import ActivityContext, App, OrchestrationContext, RetryPolicy
from shardrt.errors import ActivityFailed, SubOrchestrationFailed

app = App()

APPROVAL_FROM = Decimal(1000)
"""Orders of at least this total need somebody's approval."""
CHARGE_RETRY = RetryPolicy(max_attempts=5, first_interval=0.2, non_retryable=("CardDeclined",))


@dataclass(frozen=True)
class Line:
    """One kind of goods."""

    sku: str
    quantity: int
    price: Decimal


@dataclass(frozen=True)
class Order:
    """What a customer asks for; prices in the shop's currency."""

    id: str
    customer: str
    card: str
    country: str
    lines: list[Line]
    approval_timeout_s: float = 86_400.0
    """How long to wait for the event "approval" where one is needed."""

    @property
    def total(self) -> Decimal:
        return sum((line.quantity * line.price for line in self.lines), Decimal())


@dataclass(frozen=True)
class Outcome:
    """How an order ended. "refunded" is: charged at first, then undone."""

    order: str
    result: Literal["shipped", "refused", "refunded"]
    total: Decimal
    detail: str = ""
    """The tracking number, or why it was not shipped."""


class CardDeclined(Exception):
    """The bank says no; asking again does not help."""


@app.activity
async def validate_order(order: Order) -> list[str]:
    """Return what is wrong with an order."""
    problems = [] if order.lines else ["it has no lines"]
    for line in order.lines:
        if line.quantity < 1:
            problems.append(f"quantity of {line.sku} is {line.quantity}")
        if line.price < 0:
            problems.append(f"price of {line.sku} is {line.price}")
    return problems


@app.activity(retry=CHARGE_RETRY)
async def charge_card(ctx: ActivityContext, order: Order) -> str:
    """Charge the card and return a receipt."""
    if order.card.endswith("0000"):
        raise CardDeclined(f"card {order.card} was declined")
    if ctx.attempt == 1 and sum(order.card.encode()) % 3 == 0:
        raise ConnectionError("the bank did not answer")
    # A real bank is told this key, so that it charges once however often it is asked.
    return f"receipt-{ctx.idempotency_key}"


@app.activity
async def refund(receipt: str) -> None:
    """Give the money back."""


@app.activity
async def print_label(order: Order) -> str:
    """Return the tracking number of a new parcel."""
    return f"track-{order.id}"


@app.activity
async def call_courier(order: Order) -> None:
    """Have a parcel fetched."""
    if order.country == "Atlantis":
        raise ValueError("no courier goes to Atlantis")


@app.orchestrator
async def ship_order(ctx: OrchestrationContext, order: Order) -> str:
    """Send a parcel and return its tracking number."""
    tracking = await ctx.call_activity(print_label, order)
    await ctx.call_activity(call_courier, order)
    return tracking


@app.orchestrator(name="orders")
async def process_order(ctx: OrchestrationContext, order: Order) -> Outcome:
    if problems := await ctx.call_activity(validate_order, order):
        return Outcome(order.id, "refused", order.total, "; ".join(problems))
    try:
        receipt = await ctx.call_activity(charge_card, order)
    except ActivityFailed as failed:
        return Outcome(order.id, "refused", order.total, failed.message)
    obstacle = await approval_obstacle(ctx, order)
    if obstacle is None:
        try:
            tracking = await ctx.call_sub_orchestrator(ship_order, order)
            return Outcome(order.id, "shipped", order.total, tracking)
        except SubOrchestrationFailed as failed:
            obstacle = failed.message
    await ctx.call_activity(refund, receipt)
    return Outcome(order.id, "refunded", order.total, obstacle)


async def approval_obstacle(ctx: OrchestrationContext, order: Order) -> str | None:
    """Wait for an approval where one is needed; return why there is none."""
    if order.total < APPROVAL_FROM:
        return None
    ctx.set_custom_status("waiting for approval")
    timeout_s = order.approval_timeout_s
    try:
        approved = await ctx.wait_for_event("approval", bool, timeout=timeout_s)
    except TimeoutError:
        return f"nobody approved it within {timeout_s:g} s"
    ctx.set_custom_status(None)
    return None if approved else "the approval was denied"
