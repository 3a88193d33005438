"""The samples keep their word when everything goes wrong, and fit the histories that they made."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import TYPE_CHECKING

from shardrt import EntityId
from shardrt.samples import app
from shardrt.samples.bank import Account, Transfer, transfer
from shardrt.samples.fanout import fanout
from shardrt.samples.hello import CITIES, hello
from shardrt.samples.orders import Line, Order, process_order
from shardrt.testing import Environment, replay, simulate

if TYPE_CHECKING:
    from collections.abc import Callable

    from shardrt.client import Client

PIANO = Order("1", "Ada", "4556-1111", "Norway", [Line("piano", 1, Decimal(2450))])
SUNKEN = Order("2", "Bob", "4556-1112", "Atlantis", [Line("kettle", 2, Decimal(40))])
ANN, BOB = EntityId(Account, "ann"), EntityId(Account, "bob")

pytest_plugins = ["shardrt.testing.fixtures"]


async def drive(client: Client) -> None:
    piano = await client.start(process_order, PIANO, instance_id="piano")
    sunken = await client.start(process_order, SUNKEN, instance_id="sunken")
    await piano.raise_event("approval", True)
    assert (await piano.result()).result == "shipped"
    assert (await sunken.result()).result == "refunded"
    greetings = await (await client.start(hello, instance_id="hello")).result()
    assert greetings == [f"Hello {city}!" for city in CITIES]
    squares = await client.start(fanout, 10, instance_id="fanout")
    assert await squares.result() == sum(n * n for n in range(10))


async def move_money(client: Client) -> None:
    """Transfers in both directions at once: nothing is lost, nothing is made."""
    await client.call_entity(ANN, "deposit", 100)
    orders = [Transfer("ann", "bob", 30), Transfer("bob", "ann", 10), Transfer("ann", "bob", 60)]
    handles = [await client.start(transfer, order) for order in orders]
    done = await asyncio.gather(*(handle.result() for handle in handles))
    moved = [order if ok else None for order, ok in zip(orders, done, strict=True)]
    sent = sum(each.amount for each in moved if each and each.source == "ann")
    back = sum(each.amount for each in moved if each and each.source == "bob")
    assert await client.call_entity(ANN, "look") == 100 - sent + back
    assert await client.call_entity(BOB, "look") == sent - back


def test_orders_and_fan_outs_survive_everything():
    simulate(app, drive, seeds=range(20))


def test_no_money_is_lost_or_made():
    simulate(app, move_money, seeds=range(40))


async def test_the_samples_fit_their_histories(shardrt_env: Callable[..., Environment]):
    async with shardrt_env(app) as env:
        await drive(env.client)
        for instance_id in ("piano", "sunken", "hello", "fanout"):
            replay(app, await env.client.export(instance_id))
