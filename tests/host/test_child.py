"""The beat of a child: proof that its loop turns, and how late it does."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from shardrt.host.child import BEAT_INTERVAL_S, Parent
from shardrt.links import control
from shardrt.testing.virtual import VirtualLoop, pass_time, run_virtual

if TYPE_CHECKING:
    import msgspec


class Listening(Parent):
    """A parent that keeps what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[msgspec.Struct] = []

    def send(self, *messages: msgspec.Struct) -> None:
        self.heard += messages


def test_a_beat_tells_how_late_the_loop_was() -> None:
    async def test() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        parent = Listening()
        beating = loop.create_task(parent.beat(lambda: control.Beat(counters={"a": 1.0})))
        await pass_time(1.2 * BEAT_INTERVAL_S)
        loop.spend(1.3)
        await pass_time(2.2 * BEAT_INTERVAL_S)
        beating.cancel()
        lags = [each.lag_s for each in parent.heard if isinstance(each, control.Beat)]
        late_s = 1.3 - 0.8 * BEAT_INTERVAL_S
        assert [round(each, 2) for each in lags[:4]] == [0.0, 0.0, round(late_s, 2), 0.0]
        assert {each.counters["a"] for each in parent.heard if isinstance(each, control.Beat)} == {
            1.0
        }

    run_virtual(test())
