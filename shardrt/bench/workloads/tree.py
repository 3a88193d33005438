"""Orchestrations that start orchestrations: a tree of them, with an activity in each leaf."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shardrt import App, OrchestrationContext
from shardrt.bench.errors import check

if TYPE_CHECKING:
    from shardrt.bench.bench import Bench

app = App()


@dataclass(frozen=True)
class Node:
    """A tree below its root."""

    depth: int
    """Levels below this one."""
    width: int
    """Children of each node that has any."""
    first: int = 0
    """Number of the first leaf."""

    @property
    def leaves(self) -> int:
        return int(self.width**self.depth)


@app.activity(name="bench.leaf")
async def leaf(number: int) -> int:
    return number


@app.orchestrator(name="bench.tree")
async def tree(ctx: OrchestrationContext, node: Node) -> int:
    """Return the sum of the numbers of all leaves."""
    if node.depth == 0:
        return await ctx.call_activity(leaf, node.first)
    below = node.leaves // node.width
    children = (
        Node(node.depth - 1, node.width, node.first + number * below)
        for number in range(node.width)
    )
    return sum(await asyncio.gather(*(ctx.call_sub_orchestrator(tree, each) for each in children)))


async def run(bench: Bench) -> None:
    """Run it again and again."""
    root = Node(bench.size("depth"), bench.size("width"))
    expected = sum(range(root.leaves))

    async def run_one(_: int) -> None:
        check(await bench.client.execute(tree, root), expected, "a tree")

    timing = await bench.load(run_one, activities=root.leaves)
    orchestrations = sum(root.width**level for level in range(root.depth + 1))
    per_s = len(timing.latencies) * orchestrations / timing.seconds
    bench.figures["orchestrations_per_s"] = round(per_s, 1)
