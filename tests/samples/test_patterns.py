"""The patterns among the samples, on a virtual clock: how they end, also when things go wrong."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from shardrt.errors import InputInvalid, OrchestrationFailed
from shardrt.samples import app, heartbeat, pipeline, resilient, sequential, shop, timers, trip
from shardrt.samples.approval import Decision, Expense, approval
from shardrt.samples.heartbeat import Heart
from shardrt.samples.shop.checkout import checkout
from shardrt.samples.ticket import History, State, ticket
from shardrt.samples.typed import Currency, Item, Ok, Quote, Refused, Request, quote
from shardrt.testing import Environment, run_virtual

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
TRIP = timedelta(seconds=5)
"""What computing and pauses of retries may add to virtual times."""


def in_environment(test: Callable[[Environment], Awaitable[Any]], **options: Any) -> Any:
    async def main() -> Any:
        async with Environment(app, **options) as env:
            return await test(env)

    return run_virtual(main())


def result_of(orchestrator: Any, given: Any = None, **options: Any) -> Any:
    """Run an orchestrator to its end; return its result as it is annotated."""

    async def test(env: Environment) -> Any:
        return await (await env.client.start(orchestrator, given)).result()

    return in_environment(test, **options)


# -- a chain ------------------------------------------------------------------------------------


def test_each_step_of_a_chain_gets_what_the_one_before_returned() -> None:
    assert result_of(sequential.sequential, " ONE two ") == "One: one two (2 words)"


def test_a_chain_that_is_cut_goes_on_and_repeats_no_step() -> None:
    runs: Counter[str] = Counter()

    def read(text: str) -> sequential.Draft:
        runs["read"] += 1
        return sequential.Draft("cut", [text])

    async def test(env: Environment) -> Any:
        async def edit(draft: sequential.Draft) -> sequential.Draft:
            runs["edit"] += 1
            if runs["edit"] == 1:
                await env.crash()
            return draft

        env.stub("edit_draft", edit)
        return await (await env.client.start(sequential.sequential, "x")).result()

    assert in_environment(test, stubs={"read_draft": read}) == "cut: x (1 words)"
    assert runs == {"read": 1, "edit": 2}


# -- timers -------------------------------------------------------------------------------------


def test_an_invoice_nobody_pays_is_given_up_after_thirty_days() -> None:
    settled = result_of(timers.invoice)
    assert (settled.paid, settled.reminders) == (None, 9)
    assert settled.after_h == pytest.approx(30 * 24, abs=0.1)


def test_a_payment_ends_the_wait_at_once_and_cancels_the_timers() -> None:
    async def test(env: Environment) -> None:
        handle = await env.client.start(timers.invoice)
        await env.advance(72 * HOUR + HOUR)
        await env.crash()
        await handle.raise_event("paid", "by card")
        paid_at = env.now
        assert await handle.result() == timers.Settled("by card", 1, 73.0)
        assert env.now - paid_at < TRIP
        kinds = Counter(event.kind for event in await handle.history())
        assert (kinds["TimerCreated"], kinds["TimerFired"], kinds["TimerCanceled"]) == (3, 1, 2)

    in_environment(test)


# -- a human ------------------------------------------------------------------------------------


def test_a_small_expense_asks_nobody() -> None:
    assert result_of(approval, Expense("a pen", 3)) == Decision(approved=True, by="rule")


@pytest.mark.parametrize(
    ("after", "asked", "by"),
    [(HOUR, ["manager"], "Ada"), (73 * HOUR, ["manager", "director"], "Ada")],
    ids=["in time", "by the second"],
)
def test_a_decision_is_taken_from_whoever_is_asked(after: timedelta, asked: Any, by: str) -> None:
    wrote: list[str] = []

    async def test(env: Environment) -> Decision:
        handle = await env.client.start(approval, Expense("a trip", 900))
        await env.advance(after)
        status = await handle.status()
        assert status is not None
        assert status.custom_status == f"waiting for the {asked[-1]}"
        await handle.raise_event("decision", Decision(approved=True, by=by))
        return await handle.result()

    decision = in_environment(test, stubs={"ask_for_approval": wrote.append})
    assert (decision, wrote) == (Decision(approved=True, by=by), asked)


def test_without_a_decision_an_expense_is_refused_after_four_days() -> None:
    async def test(env: Environment) -> None:
        began = env.now
        handle = await env.client.start(approval, Expense("a trip", 900))
        assert await handle.result() == Decision(approved=False, by="timeout")
        assert timedelta(0) <= env.now - began - 4 * DAY < TRIP

    in_environment(test)


# -- failures -----------------------------------------------------------------------------------


def test_a_failure_that_passes_is_tried_again() -> None:
    found = result_of(resilient.resilient)
    assert found == resilient.Weather("rain in Oslo, at attempt 2", "primary", [])


def test_when_one_source_stays_down_the_next_one_is_asked() -> None:
    found = result_of(resilient.resilient, resilient.Question(down=["primary", "mirror"]))
    assert found.source == "archive"
    assert found.failures == [
        "ConnectionError: primary did not answer attempt 4",
        "ConnectionError: mirror did not answer attempt 4",
    ]


def test_what_is_hopeless_is_asked_once() -> None:
    found = result_of(resilient.resilient, resilient.Question(city="Atlantis"))
    assert found == resilient.Weather(
        "probably rain", "guess", ["UnknownCity: Atlantis is not on the map"]
    )


# -- a saga -------------------------------------------------------------------------------------

ROME = trip.Plan("Rome")
FLIGHT, TRAIN, HOTEL, CAR = (f"{part} in Rome" for part in ("flight", "train", "hotel", "car"))


@pytest.mark.parametrize(
    ("full", "undone"),
    [("flight", []), ("train", [FLIGHT]), ("car", [HOTEL, TRAIN, FLIGHT])],
)
def test_a_trip_that_fails_is_undone_in_reverse(full: str, undone: list[str]) -> None:
    cancelled: list[str] = []
    booked = result_of(
        trip.trip, replace(ROME, full=(full,)), stubs={"cancel_booking": cancelled.append}
    )
    assert booked.bookings == []
    assert booked.reason.endswith(f"LookupError: no {full} in Rome is left")
    assert cancelled == undone


def test_a_trip_without_obstacles_is_booked() -> None:
    assert result_of(trip.trip, ROME) == trip.Booked([FLIGHT, TRAIN, HOTEL, CAR])


def test_undoing_is_tried_until_it_works() -> None:
    attempts: Counter[str] = Counter()

    def cancel(booking: str) -> None:
        attempts[booking] += 1
        if attempts[booking] < 5:
            raise ConnectionError("busy")

    result_of(trip.trip, replace(ROME, full=("train",)), stubs={"cancel_booking": cancel})
    assert attempts == {FLIGHT: 5}


# -- for ever -----------------------------------------------------------------------------------


def test_the_same_call_with_the_same_input_runs_every_time() -> None:
    beats: list[str] = []
    assert result_of(heartbeat.heartbeat, Heart(beats=25), stubs={"beat": beats.append}) == 25
    assert beats == ["the shop"] * 25


def test_a_heart_beats_on_after_a_crash_and_its_history_stays_short() -> None:
    async def test(env: Environment) -> None:
        handle = await env.client.start(heartbeat.heartbeat)
        await env.advance(timedelta(minutes=24))
        await env.crash()
        await env.advance(timedelta(minutes=1))
        status = await handle.status()
        assert status is not None
        assert status.custom_status in {25, 26}
        assert len(await handle.history()) < 50
        await handle.terminate()

    in_environment(test)


# -- data ---------------------------------------------------------------------------------------


def test_a_pipeline_sets_bad_rows_aside() -> None:
    loaded = result_of(pipeline.pipeline, ["10", "x", "-3", "5"])
    assert loaded == pipeline.Loaded(rows=3, total=12.0, bad=["x"])
    assert result_of(pipeline.pipeline, []) == pipeline.Loaded(0, 0.0, [])


def test_a_pipeline_loads_nothing_if_too_much_is_bad() -> None:
    numbers: list[Any] = []
    with pytest.raises(OrchestrationFailed, match="2 of 3 rows are bad"):
        result_of(pipeline.pipeline, ["x", "1", "y"], stubs={"load_rows": numbers.append})
    assert numbers == []


# -- states -------------------------------------------------------------------------------------


def walk(*events: str) -> tuple[History, timedelta]:
    """Drive a ticket, and return its result with how long it took."""

    async def test(env: Environment) -> tuple[History, timedelta]:
        began = env.now
        handle = await env.client.start(ticket)
        for event in events:
            await handle.raise_event("do", event)
        return await handle.result(), env.now - began

    found: tuple[History, timedelta] = in_environment(test)
    return found


def test_a_ticket_takes_the_ways_of_its_table_and_no_other() -> None:
    history, _ = walk("solve", "assign", "solve", "reopen", "unassign", "close")
    assert history.path == [
        *(State.OPEN, State.ASSIGNED, State.SOLVED),
        *(State.ASSIGNED, State.OPEN, State.CLOSED),
    ]
    assert history.refused == ["solve while open"]


def test_a_solved_ticket_closes_by_itself() -> None:
    history, took = walk("assign", "solve")
    assert history.path[-1] == State.CLOSED
    assert timedelta(0) <= took - 7 * DAY < TRIP


# -- types --------------------------------------------------------------------------------------


def test_a_quote_keeps_its_types() -> None:
    due = date(2030, 1, 31)
    items = [Item("pen", Decimal("0.10"), 3), Item("ink", Decimal("7.05"), 1)]
    quoted = result_of(quote, Request(due, items, Currency.NOK))
    assert quoted == Ok(Quote(Decimal("7.35"), Currency.NOK, due))
    assert result_of(quote, Request(due, [])) == Refused("there is nothing to quote")


def test_a_request_that_does_not_fit_is_refused_at_its_start() -> None:
    with pytest.raises(InputInvalid, match=r"items"):
        result_of(quote, {"due": "2030-01-31", "items": [["pen", "cheap", 1]]})


# -- a package ----------------------------------------------------------------------------------


def test_the_shop_has_registered_what_its_modules_declare() -> None:
    assert [each.name for each in shop.app.orchestrators] == ["checkout"]
    assert [each.name for each in shop.app.activities] == ["find_price"]
    assert result_of(checkout, ["pen", "ink", "pen"]) == 11
    with pytest.raises(OrchestrationFailed, match="not sold here: sand"):
        result_of(checkout, ["pen", "sand"])
