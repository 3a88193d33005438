"""What shard processes are told, and the routes that follow from it."""

from __future__ import annotations

from typing import Any, cast

from shardrt.links import control
from shardrt.store.base import Host, Ownership, View
from shardrt.supervisor.shards import Shards

ME, OTHER = "a/1", "b/1"


class FakeSlot:
    def __init__(self, index: int) -> None:
        self.index = index
        self.socket = f"/shard-{index}"
        self.serves = self.listens = True
        self.child: object = None
        self.soon = False
        self.uptime_s = 0.0
        self.told: list[control.ToChild] = []

    def send(self, message: control.ToChild) -> None:
        self.told.append(message)

    def comes_soon(self, within_s: float) -> bool:
        return self.soon


class Owner:
    def __init__(self) -> None:
        self.gone: list[tuple[int, int]] = []

    def released(self, partition: int, epoch: int) -> None:
        self.gone.append((partition, epoch))


def shards_of(*slots: FakeSlot) -> tuple[Shards, Owner]:
    shards, owner = Shards(cast("Any", slots)), Owner()
    shards.owner = owner
    return shards, owner


def view(*owners: str | None) -> View:
    hosts = (
        Host("a", "1", "http://a", 1, expires_at=10),
        Host("b", "1", "http://b", 1, expires_at=10),
        Host("c", "1", "http://c", 1, expires_at=1),
        Host("d", "1", "", 1, expires_at=10),
    )
    return View(5, hosts, tuple(Ownership(p, each, 1, 0, 0) for p, each in enumerate(owners)))


def test_routes_lead_to_our_shards_and_to_other_hosts_that_live() -> None:
    shards, _ = shards_of(FakeSlot(0))
    assert shards.targets({}, ME) == []
    shards.assign(0, 4)
    shards.looked(view(ME, OTHER, ME, None, "c/1", "d/1", "b/0"))
    others = ["http://b#b/1", None, None, None, None, None]
    assert shards.targets({0: 4}, ME) == ["/shard-0", *others]
    # Not under an epoch that is not served yet, or any more.
    assert shards.targets({0: 3}, ME) == [None, *others]


def test_a_shard_that_drains_still_learns_of_the_lease() -> None:
    slot = FakeSlot(0)
    shards, _ = shards_of(slot)
    slot.serves = False
    shards.lease(10.0, 1)
    assert slot.told == [control.Lease(10.0, 1)]


def test_what_is_taken_from_a_shard_is_gone_when_it_says_so_or_dies() -> None:
    slot = FakeSlot(0)
    shards, owner = shards_of(slot)
    for partition in range(3):
        shards.assign(partition, 1)
    shards.discard(0, 1)
    shards.discard(1, 1)
    assert slot.told[-2:] == [control.Discard(0, 1), control.Discard(1, 1)]
    assert owner.gone == []
    shards.left(cast("Any", slot), 0, 1)
    assert shards.went_down(cast("Any", slot)) == [1, 2]
    # What no shard has is gone already.
    shards.discard(0, 1)
    assert owner.gone == [(0, 1)]


def test_a_host_gives_up_when_no_shard_is_there_or_comes_soon() -> None:
    slot = FakeSlot(0)
    shards, _ = shards_of(slot)
    slot.child = "serves"
    assert shards.can_serve(10, could=True)
    slot.serves, slot.child = False, None
    assert not shards.can_serve(10, could=True)
    slot.soon = True
    assert shards.can_serve(10, could=True)
    slot.soon, slot.child = False, "starting, or about to be killed"
    assert shards.can_serve(10, could=True)


def test_a_host_that_gave_up_takes_part_again_once_a_shard_has_served_for_a_while() -> None:
    slot = FakeSlot(0)
    shards, _ = shards_of(slot)
    slot.serves, slot.soon, slot.child = False, True, "starting"
    assert not shards.can_serve(10, could=False)
    slot.serves, slot.uptime_s = True, 9.9
    assert not shards.can_serve(10, could=False)
    slot.uptime_s = 10.0
    assert shards.can_serve(10, could=False)
