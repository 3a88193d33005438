"""The verdict on entities: every number counted once, and no money made or lost."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from tests.chaos.bank import Count, Move, Tally, Transfer, audit

if TYPE_CHECKING:
    from shardrt import Client
    from tests.chaos.tallying import TallyLog

AUDIT_S = 60.0


async def check_tally(client: Client, log: TallyLog) -> list[str]:
    """Compare what a tally has with what its sender knows; what was signalled comes before."""
    count: Count = await client.call_entity(f"@tally@{log.key}", Tally.look)
    return [f"{log.key}: {fault}" for fault in tally_faults(count, log)]


def tally_faults(count: Count, log: TallyLog) -> list[str]:
    known, unknown = set(log.acknowledged), set(log.unknown)
    never = [*range(max(known | unknown, default=-1) + 1, count.latest + 1)]
    lost = [n for n in log.acknowledged if n > count.latest or n in count.missing]
    first_unknown = min(unknown, default=count.latest + 1)
    answers = {n: said for n, said in log.answers.items() if n < first_unknown and said != n + 1}
    faults = {
        "acknowledged and not counted": lost,
        "counted twice": count.twice,
        "counted out of order": sorted(set(count.late) & known),
        "counted and never sent": never,
        "answered with a wrong count": answers,
    }
    return [f"{what}: {numbers}" for what, numbers in faults.items() if numbers]


async def check_books(client: Client, transfers: dict[str, Transfer]) -> list[str]:
    """Compare all purses, seen at one time, with the transfers that have ended."""
    handle = await client.start(audit, instance_id="audit")
    return book_faults(await handle.result(timeout=AUDIT_S), transfers)


def book_faults(books: dict[str, list[Move]], transfers: dict[str, Transfer]) -> list[str]:
    """Say what is wrong: each transfer has two sides, and those are what it returned."""
    sides: dict[str, Counter[str]] = defaultdict(Counter)
    faults: list[str] = []
    for purse, moves in books.items():
        for move in moves:
            if purse in sides[move.transfer]:
                faults.append(f"{move.transfer}: came twice to {purse}")
            sides[move.transfer][purse] += move.amount
    if total := sum(move.amount for moves in books.values() for move in moves):
        faults.append(f"the purses add up to {total}")
    faults += [
        f"{transfer}: is cut in the middle: {dict(found)}"
        for transfer, found in sides.items()
        if len(found) != 2 or found.total()
    ]
    for transfer, said in transfers.items():
        expected = {said.source: -said.amount, said.target: said.amount}
        if dict(sides[transfer]) != expected:
            faults.append(f"{transfer}: {dict(sides[transfer])} instead of {expected}")
    return faults
