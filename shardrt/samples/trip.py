"""A saga: children that do parts of a whole, and undo them if a later part fails.

    python -m shardrt.samples trip '{"to": "Rome", "full": ["car"]}'

Each half is a child that books all or fails with nothing; so does the trip with its halves.
"""

from dataclasses import dataclass

from shardrt import App, OrchestrationContext, RetryPolicy
from shardrt.errors import ActivityFailed, SubOrchestrationFailed

app = App()


@dataclass(frozen=True)
class Plan:
    """Where to go."""

    to: str
    full: tuple[str, ...] = ()  # nobody can book these any more


@dataclass(frozen=True)
class Booked:
    """All bookings of a trip; or none, and why."""

    bookings: list[str]
    reason: str = ""


@app.activity
async def book(order: tuple[str, Plan]) -> str:
    part, plan = order
    if part in plan.full:
        raise LookupError(f"no {part} in {plan.to} is left")
    return f"{part} in {plan.to}"


@app.activity(retry=RetryPolicy(max_attempts=1000))
async def cancel_booking(booking: str) -> None:
    """Give it back."""


async def undo(ctx: OrchestrationContext, bookings: list[str]) -> None:
    for each in reversed(bookings):
        await ctx.call_activity(cancel_booking, each)


async def book_all(ctx: OrchestrationContext, plan: Plan, *parts: str) -> list[str]:
    bookings = list[str]()
    for part in parts:
        try:
            bookings.append(await ctx.call_activity(book, (part, plan)))
        except ActivityFailed:
            await undo(ctx, bookings)
            raise
    return bookings


@app.orchestrator
async def journey(ctx: OrchestrationContext, plan: Plan) -> list[str]:
    return await book_all(ctx, plan, "flight", "train")


@app.orchestrator
async def stay(ctx: OrchestrationContext, plan: Plan) -> list[str]:
    return await book_all(ctx, plan, "hotel", "car")


@app.orchestrator
async def trip(ctx: OrchestrationContext, plan: Plan) -> Booked:
    bookings = list[str]()
    try:
        bookings += await ctx.call_sub_orchestrator(journey, plan)
        bookings += await ctx.call_sub_orchestrator(stay, plan)
    except SubOrchestrationFailed as failed:
        await undo(ctx, bookings)
        return Booked([], failed.message)
    return Booked(bookings)
