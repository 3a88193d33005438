from __future__ import annotations

from msgspec import Raw

from shardrt.core.history import Failure, Status
from shardrt.core.messages import ChildEnded, DeliverEvent
from shardrt.core.state import Lane, PartitionState
from shardrt.host.lanes import BATCH_BYTES_MAX, BATCH_MESSAGES_MAX, RESEND_S, Lanes
from shardrt.links.messages import Deliver, PartitionTraffic


class World:
    """A clock and a network that a test moves by hand."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.sent: list[tuple[int, int]] = []

    def now(self) -> int:
        return round(self.now_s * 1e6)

    def monotonic_s(self) -> float:
        return self.now_s

    def send(self, partition: int, message: PartitionTraffic) -> None:
        assert isinstance(message, Deliver)
        assert partition == message.destination
        self.sent.append((message.first, message.first + len(message.messages) - 1))

    def take(self) -> list[tuple[int, int]]:
        sent, self.sent = self.sent, []
        return sent


def lanes_with(count: int) -> tuple[Lanes, World, Lane]:
    lane = Lane(messages=[DeliverEvent("i", "name", Raw(b"1")) for _ in range(count)])
    world = World()
    state = PartitionState(partition=0, partitions=2, lanes={1: lane})
    return Lanes(state, world, world), world, lane


def acknowledge(lane: Lane, last: int) -> None:
    del lane.messages[: last - lane.acknowledged]
    lane.acknowledged = last


def test_only_what_is_durable_leaves():
    lanes, world, _ = lanes_with(5)
    lanes.transmit(1, 3)
    assert world.take() == [(1, 3)]
    lanes.transmit(1, 5)
    assert world.take() == [(4, 5)]


def test_many_messages_leave_in_bounded_batches():
    lanes, world, _ = lanes_with(BATCH_MESSAGES_MAX + 1)
    lanes.transmit(1, BATCH_MESSAGES_MAX + 1)
    assert world.take() == [(1, BATCH_MESSAGES_MAX), (BATCH_MESSAGES_MAX + 1,) * 2]


def test_silence_is_answered_by_sending_again_ever_more_slowly():
    lanes, world, _ = lanes_with(2)
    lanes.transmit(1, 2)
    world.take()
    times = []
    for _ in range(200):
        world.now_s += 0.5
        lanes.tick()
        if world.take() == [(1, 2)]:
            times.append(world.now_s)
    assert times[:5] == [1.0, 3.0, 7.0, 15.0, 31.0]
    assert times[5:] == [61.0, 91.0]


def test_what_is_acknowledged_is_not_sent_again():
    lanes, world, lane = lanes_with(3)
    lanes.transmit(1, 3)
    world.take()
    acknowledge(lane, 2)
    world.now_s += RESEND_S
    lanes.tick()
    assert world.take() == []
    world.now_s += RESEND_S
    lanes.tick()
    assert world.take() == [(3, 3)]
    acknowledge(lane, 3)
    world.now_s += 100
    lanes.tick()
    assert world.take() == []


def test_the_receiver_can_ask_for_what_it_misses():
    lanes, world, lane = lanes_with(4)
    lanes.transmit(1, 4)
    world.take()
    lanes.resend(1, 2, 4)
    assert world.take() == [(2, 4)]
    acknowledge(lane, 3)
    lanes.resend(1, 1, 4)
    assert world.take() == [(4, 4)]
    lanes.resend(1, 9, 4)
    assert world.take() == []


def test_a_gap_that_is_told_with_every_batch_behind_it_is_filled_once():
    lanes, world, _ = lanes_with(4)
    lanes.transmit(1, 4)
    world.take()
    for _ in range(3):
        lanes.resend(1, 2, 4)
    assert world.take() == [(2, 4)]
    world.now_s += RESEND_S
    lanes.resend(1, 2, 4)
    assert world.take() == [(2, 4)]


def test_a_new_way_is_tried_at_once_with_what_is_not_acknowledged() -> None:
    lanes, world, lane = lanes_with(3)
    lanes.hasten(1)
    assert world.take() == []
    lanes.transmit(1, 3)
    acknowledge(lane, 1)
    world.take()
    for _ in range(5):
        world.now_s += 30
        lanes.tick()
    world.take()
    lanes.hasten(1)
    assert world.take() == [(2, 3)]
    # As if it had been sent for the first time.
    world.now_s += RESEND_S
    lanes.tick()
    assert world.take() == [(2, 3)]


def test_a_batch_is_bounded_by_its_bytes() -> None:
    lanes, world, lane = lanes_with(5)
    failure = Failure(type="E", details="x" * BATCH_BYTES_MAX)
    lane.messages[1] = DeliverEvent("i", "name", Raw(b"1" * (2 * BATCH_BYTES_MAX)))
    lane.messages[3] = ChildEnded(
        "i", "e", 1, 1, Status.FAILED, failure=Failure(type="E", cause=failure)
    )
    lanes.transmit(1, 5)
    assert world.take() == [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5)]
