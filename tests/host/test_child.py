"""The beat of a child: proof that its loop turns, and how late it does."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from shardrt.host.child import BEAT_INTERVAL_S, Parent
from shardrt.links import control
from shardrt.testing.virtual import VirtualLoop, pass_time, run_virtual

if TYPE_CHECKING:
    import msgspec


SCHEDULING = """
import os
from shardrt.host.child import let_others_finish
let_others_finish()
print(os.sched_getscheduler(0))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="others have no such policy")
@pytest.mark.parametrize("policy", ["SCHED_OTHER", "SCHED_BATCH", "SCHED_IDLE"])
def test_a_child_interrupts_no_others_unless_somebody_has_chosen(policy: str) -> None:
    chosen = getattr(os, policy)
    begin = f"import os; os.sched_setscheduler(0, {chosen}, os.sched_param(0))"
    told = subprocess.run(
        [sys.executable, "-c", begin + SCHEDULING], capture_output=True, text=True, check=True
    )
    expected = os.SCHED_BATCH if policy == "SCHED_OTHER" else chosen
    assert int(told.stdout) == expected


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
