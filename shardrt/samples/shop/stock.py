"""What is there."""

from shardrt import App

app = App()

PRICES = {"pen": 2, "ink": 7, "paper": 4}


@app.activity
async def find_price(sku: str) -> int | None:
    return PRICES.get(sku)
