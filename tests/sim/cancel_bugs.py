"""Bugs of cancellations; see `tests.sim.bugs`."""

from __future__ import annotations

from typing import Any

from shardrt.core import history as h, requests as r, transitions
from shardrt.core.partition import Partition
from shardrt.core.state import Instance, Resident
from shardrt.orchestration.execution import Execution
from tests.sim.patching import Patch, bug


@bug("a cancellation is lost at recovery", "result")
def _(patch: Patch) -> None:
    def forget(instance: Instance) -> None:
        told = [each for each in instance.inbox if not isinstance(each, h.CancelRequested)]
        instance.inbox[:] = told

    def make_take(take: Any) -> Any:
        def forgetful(core: Partition, epoch: int, now: int) -> None:
            for instance in core.instances.values():
                forget(instance)
            take(core, epoch, now)

        return forgetful

    def make_admit(admit: Any) -> Any:
        def forgetful(core: Partition, resident: Resident) -> None:
            if isinstance(resident, Instance):
                forget(resident)
            admit(core, resident)

        return forgetful

    patch(Partition, "take", make_take)
    patch(Partition, "admit", make_admit)


@bug("a cancellation is delivered twice", "result")
def _(patch: Patch) -> None:
    def make(cancel: Any) -> Any:
        def eager(core: Partition, instance_id: str, *rest: Any) -> None:
            instance = core.instances.get(instance_id)
            if instance is not None:
                instance.cancel_requested = False
            cancel(core, instance_id, *rest)

        return eager

    patch(Partition, "_REQUESTS", lambda old: {**old, r.Cancel: make(old[r.Cancel])})


@bug("a replay forgets a cancellation", "result")
def _(patch: Patch) -> None:
    def make(deliver: Any) -> Any:
        def forgetful(self: Execution, arrival: h.Arrival, body: Any) -> None:
            if not (self.ledger.replaying and isinstance(arrival, h.CancelRequested)):
                deliver(self, arrival, body)

        return forgetful

    patch(Execution, "_deliver", make)


@bug("a child is terminated when its parent is cancelled", "result")
def _(patch: Patch) -> None:
    patch(transitions, "_cancel_in_turn", lambda _: lambda _: None)
