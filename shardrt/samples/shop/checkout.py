"""Paying for a basket."""

import asyncio

from shardrt import App, OrchestrationContext
from shardrt.samples.shop.stock import find_price

app = App()


@app.orchestrator
async def checkout(ctx: OrchestrationContext, basket: list[str]) -> int:
    """Return what all of it costs.

    Raises:
        LookupError: something is not sold here; the instance fails.
    """
    prices = await asyncio.gather(*(ctx.call_activity(find_price, sku) for sku in basket))
    if unknown := [sku for sku, price in zip(basket, prices, strict=True) if price is None]:
        raise LookupError(f"not sold here: {', '.join(unknown)}")
    return sum(price for price in prices if price is not None)
