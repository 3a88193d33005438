"""Process a file of orders: `python -m shardrt.samples.orders FILE`.

Lines that are no orders are reported with their number and skipped. An order's id is its
instance id: with a durable `--store`, running the same file again goes on where it stopped.
"""

import asyncio
import contextlib
import functools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.progress import Progress, TaskID
from rich.table import Table

from shardrt import Client
from shardrt.errors import InstanceFinished, ShardrtError
from shardrt.samples.hosting import connected, fail, hosting_options
from shardrt.samples.orders import APPROVAL_FROM, Order, Outcome, process_order

BUNDLED = Path(__file__).with_name("orders.jsonl")
IN_FLIGHT = 100
ROWS_MAX = 40
LINE_BYTES_MAX = 1_000_000


@click.command()
@click.argument(
    "file", type=click.Path(exists=True, dir_okay=False, path_type=Path), default=BUNDLED
)
@click.option("--approve/--deny", default=True, show_default=True, help="Answer to large orders.")
@hosting_options
def main(file: Path, approve: bool, url: str | None, store: str) -> None:
    """Process FILE, which has one order as JSON on each line."""
    with Progress(console=Console(stderr=True), transient=True) as progress:
        batch = Batch(file, approve, progress, progress.add_task(file.name, total=None))
        try:
            asyncio.run(batch.process(url, store))
        except* (ShardrtError, OSError) as group:
            fail(str(group.exceptions[0]))
    show(batch)


@dataclass
class Batch:
    """A file of orders, and what became of them."""

    file: Path
    approve: bool
    progress: Progress
    bar: TaskID
    outcomes: list[Outcome] = field(default_factory=list)
    """The first `ROWS_MAX` of them."""
    results: Counter[str] = field(default_factory=Counter)
    lines_skipped: int = 0

    async def process(self, url: str | None, store: str) -> None:
        """Process all orders, at most `IN_FLIGHT` of them at a time."""
        orders = self.read()
        async with connected(url, store) as client, asyncio.TaskGroup() as group:
            for _ in range(IN_FLIGHT):
                group.create_task(self._work(client, orders))

    async def _work(self, client: Client, orders: Iterator[Order]) -> None:
        for order in orders:
            outcome = await process_one(client, order, self.approve)
            self.results[outcome.result] += 1
            if len(self.outcomes) < ROWS_MAX:
                self.outcomes.append(outcome)
            self.progress.advance(self.bar)

    def read(self) -> Iterator[Order]:
        """Yield the orders; skip lines that are none, and ids that came before."""
        seen: set[str] = set()
        decode = msgspec.json.Decoder(Order).decode
        with self.file.open("rb") as lines:
            readline = functools.partial(lines.readline, LINE_BYTES_MAX)
            for number, line in enumerate(iter(readline, b""), start=1):
                if not line.strip():
                    continue
                try:
                    order = decode(line)
                except (msgspec.MsgspecError, ValueError) as error:
                    self._skip(number, str(error))
                    continue
                if order.id in seen:
                    self._skip(number, f"order {order.id} was on a line before")
                    continue
                seen.add(order.id)
                yield order

    def _skip(self, number: int, reason: str) -> None:
        self.lines_skipped += 1
        line = f"{self.file.name}:{number}: skipped: {reason}"
        self.progress.console.print(line, markup=False, highlight=False, soft_wrap=True)


async def process_one(client: Client, order: Order, approve: bool) -> Outcome:
    handle = await client.start(
        process_order, order, instance_id=f"order-{order.id}", on_conflict="return"
    )
    if order.total >= APPROVAL_FROM:
        with contextlib.suppress(InstanceFinished):
            await client.raise_event(handle.instance_id, "approval", approve)
    outcome: Outcome = await handle.result()
    return outcome


def show(batch: Batch) -> None:
    table = Table("order", "result", "total", "detail")
    for outcome in batch.outcomes:
        table.add_row(outcome.order, outcome.result, f"{outcome.total:.2f}", outcome.detail)
    console = Console()
    console.print(table)
    counts = ", ".join(f"{count} {result}" for result, count in sorted(batch.results.items()))
    console.print(f"{batch.results.total()} orders: {counts}; {batch.lines_skipped} lines skipped")


if __name__ == "__main__":
    main(prog_name="python -m shardrt.samples.orders")
