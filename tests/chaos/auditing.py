"""The verdict on entities: every number counted once, and no money made or lost."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from tests.chaos.bank import Move, Tally, Transfer, audit

if TYPE_CHECKING:
    from shardrt import Client
    from tests.chaos.tallying import TallyLog

AUDIT_S = 60.0


async def check_tally(client: Client, log: TallyLog) -> list[str]:
    """Compare what a tally has with what its sender knows; what was signalled comes before."""
    seen: list[int] = await client.call_entity(f"@tally@{log.key}", Tally.look)
    return [f"{log.key}: {fault}" for fault in tally_faults(seen, log)]


def tally_faults(seen: list[int], log: TallyLog) -> list[str]:
    twice = [number for number, count in Counter(seen).items() if count > 1]
    if twice:
        return [f"counted twice: {twice}"]
    unknown = set(log.unknown)
    certain = [number for number in seen if number not in unknown]
    if certain != log.acknowledged:
        wrong = sorted(set(certain) ^ set(log.acknowledged)) or "another order"
        return [f"acknowledged and counted are not the same: {wrong}"]
    return [
        f"{number} was answered with {count} and is at another place"
        for number, count in log.answers.items()
        if seen[count - 1 : count] != [number]
    ]


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
