"""What a supervisor decides."""

from hypothesis import given, strategies as st

from shardrt.supervisor.policy import RestartPolicy, Restarts, choose_shard, surplus

POLICY = RestartPolicy(delay_s_min=1, delay_s_max=5, uptime_s_healthy=60, stillbirths_max=3)


def test_deaths_in_a_row_are_followed_by_ever_longer_pauses() -> None:
    restarts = Restarts()
    delays = [restarts.died(POLICY, uptime_s=1, was_ready=True) for _ in range(6)]
    assert delays == [0, 1, 2, 4, 5, 5]


def test_a_healthy_life_is_a_new_start() -> None:
    restarts = Restarts()
    for _ in range(4):
        restarts.died(POLICY, uptime_s=1, was_ready=True)
    assert restarts.died(POLICY, uptime_s=60, was_ready=True) == 0
    assert restarts.total == 5


def test_a_child_that_never_comes_up_is_given_up() -> None:
    restarts = Restarts()
    delays = [restarts.died(POLICY, uptime_s=1, was_ready=False) for _ in range(3)]
    assert delays == [0, 1, None]


def test_a_child_that_was_up_once_is_never_given_up() -> None:
    restarts = Restarts()
    restarts.died(POLICY, uptime_s=1, was_ready=True)
    delays = [restarts.died(POLICY, uptime_s=1, was_ready=False) for _ in range(9)]
    assert None not in delays


def test_the_emptiest_shard_is_chosen_and_ties_are_spread() -> None:
    assert choose_shard(7, {0: 2, 1: 1, 2: 2}) == 1
    assert [choose_shard(partition, {0: 0, 4: 0}) for partition in range(4)] == [0, 4, 0, 4]


@given(st.lists(st.integers(0, 12), min_size=1, max_size=8))
def test_moving_the_surplus_evens_the_load_with_no_more_moves_than_needed(sizes) -> None:
    numbers = iter(range(1000))
    hosted = {shard: [next(numbers) for _ in range(size)] for shard, size in enumerate(sizes)}
    moved = surplus(hosted)
    assert len(set(moved)) == len(moved)
    loads = {shard: len(set(kept) - set(moved)) for shard, kept in hosted.items()}
    for partition in moved:
        loads[choose_shard(partition, loads)] += 1
    assert max(loads.values()) - min(loads.values()) <= 1
    low, rest = divmod(sum(sizes), len(sizes))
    shares = sorted((low + (n < rest) for n in range(len(sizes))), reverse=True)
    ordered = sorted(sizes, reverse=True)
    needed = sum(max(0, size - share) for size, share in zip(ordered, shares, strict=True))
    assert len(moved) == needed


def test_without_shards_nothing_moves() -> None:
    assert surplus({}) == []
