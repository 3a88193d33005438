"""What a host does next about its partitions."""

from shardrt.cluster.holdings import (
    TRANSITIONS,
    Abandon,
    Action,
    Claim,
    Drop,
    Happening,
    Holding,
    Holdings,
    Outlook,
    Phase,
    Release,
    Revoke,
    Terms,
    desired_owners,
    live_owners,
    plan,
)
from shardrt.store.base import Host, Ownership, View

NOW = 1_000_000_000
ME = "a/1"


def host(
    name: str,
    *,
    shards: int = 1,
    left_us: int = 5_000_000,
    draining: bool = False,
    address: str = "http://there",
) -> Host:
    host_id, _, incarnation = name.partition("/")
    return Host(host_id, incarnation, address, shards, NOW + left_us, draining)


def view(owners: list[str | None], *hosts: Host, epoch: int = 3) -> View:
    rows = tuple(Ownership(p, owner, epoch, 0, 0) for p, owner in enumerate(owners))
    return View(NOW, hosts, rows)


def decide(
    seen: View, held: dict[int, Phase], *, epoch: int = 3, now_s: float = 100, settled: bool = True
) -> list[Action]:
    holdings = Holdings(Terms(opening_max=2, handovers_max=2))
    for partition, phase in held.items():
        holdings.held[partition] = Holding(epoch=epoch, phase=phase, since_s=0)
    outlook = Outlook(view=seen, me=ME, desired=desired_owners(seen), now_s=now_s, settled=settled)
    return plan(outlook, holdings)


def test_every_phase_is_listed() -> None:
    assert set(TRANSITIONS) == set(Phase)


def test_free_partitions_are_claimed_a_few_at_a_time() -> None:
    assert decide(view([None] * 4, host(ME)), {}) == [Claim(0, 3), Claim(1, 3)]


def test_the_partitions_of_an_expired_or_absent_host_are_free() -> None:
    expired = host("b/1", left_us=0)
    assert decide(view(["b/1", "c/9"], host(ME), expired), {}) == [Claim(0, 3), Claim(1, 3)]


def test_nothing_is_claimed_from_a_live_host_even_if_it_is_draining() -> None:
    draining = host("b/1", draining=True)
    assert decide(view(["b/1"] * 4, host(ME), draining), {}) == []


def test_a_surplus_is_handed_over_a_few_at_a_time_once_hosts_are_settled() -> None:
    seen = view([ME] * 8, host(ME), host("b/1"))
    serving = dict.fromkeys(range(8), Phase.SERVING)
    assert decide(seen, serving) == [Revoke(4), Revoke(5)]
    assert decide(seen, serving, settled=False) == []
    assert decide(seen, serving | {4: Phase.REVOKING}, now_s=10) == [Revoke(5)]


def test_a_partition_with_a_newer_epoch_is_dropped() -> None:
    seen = view(["b/1", "b/1"], host(ME), host("b/1"), epoch=4)
    assert decide(seen, {0: Phase.SERVING}) == [Drop(0)]


def test_a_view_from_before_our_claim_changes_nothing() -> None:
    seen = view(["b/1", "b/1"], host(ME), host("b/1"))
    assert decide(seen, {0: Phase.SERVING}, epoch=4) == []


def test_what_somebody_released_for_us_is_dropped_and_then_claimed() -> None:
    seen = view([None], host(ME))
    assert decide(seen, {0: Phase.SERVING}) == [Drop(0)]
    assert decide(seen, {}) == [Claim(0, 3)]


def test_what_a_shard_left_behind_is_claimed_again() -> None:
    assert decide(view([ME], host(ME)), {0: Phase.RECLAIMING}) == [Claim(0, 3)]


def test_what_we_are_to_give_up_is_released() -> None:
    seen = view([ME, ME], host(ME), host("b/1", shards=9))
    assert decide(seen, {0: Phase.GIVING, 1: Phase.BROKEN}) == [Release(0, 3), Release(1, 3)]


def test_a_partition_that_names_us_without_our_knowing_is_claimed_or_released() -> None:
    assert decide(view([ME], host(ME)), {}) == [Claim(0, 3)]
    seen = view([ME, ME], host(ME, draining=True), host("b/1"))
    assert decide(seen, {}) == [Release(0, 3), Release(1, 3)]


def test_a_partition_that_is_not_drained_in_time_is_taken_away() -> None:
    seen = view([ME, ME], host(ME), host("b/1"))
    held = {0: Phase.SERVING, 1: Phase.REVOKING}
    assert decide(seen, held, now_s=60) == []
    assert decide(seen, held, now_s=61) == [Abandon(1)]


def test_a_partition_that_does_not_leave_its_shard_in_time_is_taken_from_it() -> None:
    held = {0: Phase.SERVING, 1: Phase.MOVING}
    seen = view([ME, ME], host(ME))
    assert decide(seen, held, now_s=60) == []
    assert decide(seen, held, now_s=61) == [Abandon(1)]


def test_a_happening_of_an_old_epoch_is_ignored() -> None:
    holdings = Holdings()
    holdings.claimed(1, 5, now_s=0)
    assert not holdings.happened(1, 4, Happening.OPENED, 1)
    assert holdings.happened(1, 5, Happening.OPENED, 1)
    assert not holdings.happened(1, 5, Happening.OPENED, 2)
    assert holdings.held == {1: Holding(epoch=5, phase=Phase.SERVING, since_s=1)}


def test_trouble_is_forgotten_after_a_healthy_while() -> None:
    holdings = Holdings(Terms(retry_s_min=1, retry_s_max=5, healthy_s=10))
    assert [holdings.trouble(1, "x", 0) for _ in range(4)] == [1, 2, 4, 5]
    holdings.claimed(1, 5, now_s=0)
    assert holdings.happened(1, 5, Happening.OPENED, 0)
    assert holdings.happened(1, 5, Happening.SHARD_DIED, 10)
    assert holdings.troubles == {}


def test_only_live_hosts_count() -> None:
    seen = view([], host("a/1"), host("b/1", left_us=0), host("c/1", draining=True))
    assert live_owners(seen) == {"a/1": False, "c/1": True}


def test_who_cannot_be_reached_owns_nothing_while_others_can() -> None:
    hidden = host("b/1", shards=9, address="")
    assert desired_owners(view(["b/1"] * 4, host(ME), hidden)) == [ME] * 4
    gone = host(ME, left_us=0)
    assert desired_owners(view([ME] * 4, gone, hidden)) == ["b/1"] * 4


def test_who_has_no_shards_owns_nothing_while_others_have_some() -> None:
    bare = host("b/1", shards=0)
    assert desired_owners(view(["b/1"] * 4, host(ME), bare)) == [ME] * 4
    # Nobody has any: then things stay where they are.
    assert desired_owners(view(["b/1", ME], host(ME, shards=0), bare)) == ["b/1", ME]


def test_of_hosts_that_cannot_be_reached_one_owns_everything() -> None:
    hidden = [host(name, address="") for name in ("c/1", "b/1", ME)]
    assert desired_owners(view([None] * 3, *hidden)) == [ME] * 3
    assert desired_owners(view([None, "b/1", None], *hidden)) == ["b/1"] * 3
