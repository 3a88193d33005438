"""Orchestrations that signal entities: each message arrives once, in the order of its sender.

A producer sends a batch, continues as new, and so on; a consumer knows which number of each
producer must come next. At the end the producer asks every consumer, by the same way that
its messages took, how many came.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from shardrt import App, EntityId, OrchestrationContext
from shardrt.bench.errors import check

if TYPE_CHECKING:
    from shardrt.bench.bench import Bench

app = App()


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a producer shall send."""

    sender: str
    consumers: list[str]
    """Keys; they are served in turn."""
    batches: int
    batch: int
    """Messages to each consumer before the producer continues as new."""
    padding: str
    sent: int = 0
    """Batches so far."""


@dataclass(frozen=True)
class Message:
    """One message: who sent it, and which of those to this consumer it is."""

    sender: str
    number: int
    padding: str


@app.entity(name="bench.consumer")
class Consumer:
    """Counts what comes in order; what is out of order is never forgiven."""

    came: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def take(self, message: Message) -> None:
        expected = self.came.get(message.sender, 0)
        if message.number != expected and not self.wrong:
            self.wrong.append(f"{message.number} of {message.sender} instead of {expected}")
        self.came[message.sender] = expected + 1

    def count(self, sender: str) -> int:
        return self.came.get(sender, 0)

    def mistakes(self) -> list[str]:
        return self.wrong


@app.orchestrator(name="bench.produce")
async def produce(ctx: OrchestrationContext, order: Order) -> list[int]:
    """Send everything; return how many messages of ours each consumer got."""
    consumers = [EntityId(Consumer, key) for key in order.consumers]
    if order.sent < order.batches:
        first = order.sent * order.batch
        for number in range(first, first + order.batch):
            for consumer in consumers:
                message = Message(order.sender, number, order.padding)
                ctx.signal_entity(consumer, Consumer.take, message)
        ctx.continue_as_new(replace(order, sent=order.sent + 1))
        return []
    calls = (ctx.call_entity(each, Consumer.count, order.sender) for each in consumers)
    return await asyncio.gather(*calls)


async def run(bench: Bench) -> None:
    """Run `n` producers against a fixed number of consumers."""
    batches, batch = bench.size("batches"), bench.size("batch")
    consumers = [f"{bench.name}-{number}" for number in range(bench.size("consumers"))]
    padding = "x" * bench.size("bytes")
    warmed_up = bench.options.warmup

    async def run_one(number: int) -> None:
        order = Order(
            sender=f"{bench.name}-{number}-{'w' if warmed_up else ''}",
            consumers=consumers,
            batches=batches,
            batch=batch,
            padding=padding,
        )
        handle = await bench.client.start(produce, order)
        arrived = await handle.result()
        check(arrived, [batches * batch] * len(consumers), f"what came of {order.sender}")

    await bench.warm_up(run_one)
    warmed_up = 0
    async with bench.accounting(bench.options.n):
        timing = await bench.loop("measuring", run_one, bench.options.n)
    bench.note(timing)
    for key in consumers:
        mistakes = await bench.client.call_entity(EntityId(Consumer, key), Consumer.mistakes)
        check(mistakes, [], f"what was wrong at {key}")
    messages = bench.options.n * batches * batch * len(consumers)
    bench.figures["messages_per_s"] = round(messages / timing.seconds, 1)
