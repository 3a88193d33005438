"""Entities at their limits: more than a step takes, and times that no store could hold."""

from __future__ import annotations

import pytest

from shardrt.core import entity as en, requests as r
from shardrt.core.timers import DUE_MAX
from tests.core.acts import ONE, TWO, ask
from tests.core.test_entities import ACC, Story


@pytest.mark.parametrize("has_lock_request", [True, False])
def test_a_parked_entity_is_not_tried_again_for_what_would_not_be_handed_out(
    has_lock_request: bool,
):
    story = Story()
    for seq in range(2, 3 if has_lock_request else en.OPERATIONS_MAX + 3):
        story.signal(ACC, ONE, seq)
    if has_lock_request:
        story.hold(ACC)
        story.world.commit_all()
        story.world.exchange()
    node = story.world.nodes[0]
    item = story.world.next_entity_work(node)
    assert item is not None
    assert len(story.world.entity(ACC).inbox) > len(item.operations)
    story.world.entity_work.remove(item)
    assert story.world.step_entity(en.EntityStep(ACC, item.token, parked="no code"))
    assert story.world.next_entity_work(node) is None


def test_a_signal_for_the_end_of_time_is_due_when_a_store_can_still_say():
    story = Story()
    ask(story.world, r.SignalEntity("add", TWO, 2**70), 1, ACC)
    assert story.world.entity(ACC).next_due == DUE_MAX
