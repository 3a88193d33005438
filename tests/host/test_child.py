"""The beat of a child: proof that its loop turns, and how late it does."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from shardrt.host.child import BEAT_INTERVAL_S, Parent, let_others_finish
from shardrt.links import control
from shardrt.testing.virtual import VirtualLoop, pass_time, run_virtual

if TYPE_CHECKING:
    import msgspec


SCHEDULING = """
import os
from shardrt.host.child import let_others_finish
let_others_finish()
print(os.sched_getscheduler(0) == os.SCHED_BATCH)
"""
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="others have no such policy")


@linux_only
def test_a_child_interrupts_no_others() -> None:
    told = subprocess.run(
        [sys.executable, "-c", SCHEDULING], capture_output=True, text=True, check=True
    )
    assert told.stdout.split() == ["True"]


@linux_only
@pytest.mark.parametrize("policy", ["SCHED_BATCH", "SCHED_IDLE", "SCHED_RR"])
def test_a_policy_that_somebody_has_chosen_stays(
    monkeypatch: pytest.MonkeyPatch, policy: str
) -> None:
    # Without being under it: beside other tests SCHED_IDLE might not get to run.
    changes: list[object] = []
    monkeypatch.setattr(os, "sched_getscheduler", lambda _: getattr(os, policy))
    monkeypatch.setattr(os, "sched_setscheduler", lambda *change: changes.append(change))
    let_others_finish()
    assert not changes


@linux_only
def test_where_policies_cannot_be_changed_it_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def refuse(*change: object) -> None:
        asked.append(change)
        raise PermissionError

    monkeypatch.setattr(os, "sched_getscheduler", lambda _: os.SCHED_OTHER)
    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    let_others_finish()
    assert len(asked) == 1


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
