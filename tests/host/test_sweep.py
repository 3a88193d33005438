"""Every storage call fails once, before and after it took effect; and a shard dies at each."""

from __future__ import annotations

import pytest

from shardrt.config import Settings
from shardrt.config.settings import ShardSettings
from shardrt.testing.client import HubClient
from shardrt.testing.faults import FailCall, Fault, NoFaults, Plan
from shardrt.testing.hub import Hub
from shardrt.testing.virtual import run_virtual
from tests.host.flows import DRIVES, Drive, app
from tests.host.witness import (
    Twins,
    assert_history,
    assert_no_slots,
    assert_recoverable,
    instances_of,
)

SETTINGS = Settings(shard=ShardSettings(checkpoint_interval_s=0.05))


async def play(drive: Drive, plan: Plan) -> Hub:
    """Run one flow under one plan, and check everything afterwards."""
    async with Hub(app, partitions=3, settings=SETTINGS, plan=plan) as hub:
        twins = Twins(hub)
        client = HubClient(hub)
        await drive(client)
        await hub.quiet()
        for instance_id in instances_of(hub):
            await assert_history(client, instance_id)
        await hub.quiet()  # a fault may have struck while that was read
        await assert_no_slots(hub)
        await assert_recoverable(hub)
        assert twins.compared > 0
        assert hub.broken == []
        return hub


@pytest.mark.parametrize("fault", Fault)
@pytest.mark.parametrize("flow", DRIVES)
def test_any_storage_call_may_fail(flow: str, fault: Fault):
    number = 0
    calls = 1
    while number < calls:
        number += 1
        try:
            hub = run_virtual(play(DRIVES[flow], FailCall(number, fault)))
        except BaseException as error:
            error.add_note(f"call {number}")
            raise
        calls = len(hub.calls.names)
    assert calls > 20


@pytest.mark.parametrize("flow", DRIVES)
def test_nothing_needs_to_fail(flow: str):
    hub = run_virtual(play(DRIVES[flow], NoFaults()))
    assert hub.crashes == 0
