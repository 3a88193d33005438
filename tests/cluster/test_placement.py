"""Who should own what."""

from itertools import product

from hypothesis import given, strategies as st

from shardrt.cluster.placement import place

names = st.sampled_from(["a", "b", "c", "d", "e"])
shares = st.dictionaries(names, st.integers(1, 9), min_size=1)
owners = st.lists(st.none() | names | st.just("dead"), max_size=40)


def moves(before: list[str | None], after: list[str | None], live: dict[str, int]) -> int:
    return sum(b != a for b, a in zip(before, after, strict=True) if b in live)


def balanced(after: list[str | None], live: dict[str, int]) -> bool:
    total = sum(live.values())
    return all(
        len(after) * weight // total <= after.count(host) <= -(-len(after) * weight // total)
        for host, weight in live.items()
    )


@given(shares, owners)
def test_every_partition_is_placed_and_every_host_has_its_share(live, before) -> None:
    after = place(live, before)
    assert len(after) == len(before)
    assert set(after) <= set(live)
    assert balanced(after, live)


@given(shares, owners)
def test_a_finished_placement_stays(live, before) -> None:
    after = place(live, before)
    assert place(live, after) == after


@given(shares, owners, st.randoms())
def test_the_order_of_hosts_does_not_matter(live, before, random) -> None:
    items = list(live.items())
    random.shuffle(items)
    assert place(dict(items), before) == place(live, before)


@given(
    st.dictionaries(st.sampled_from("abc"), st.integers(1, 4), min_size=1),
    st.lists(st.sampled_from(["a", "b", "c", None]), max_size=5),
)
def test_no_balanced_placement_moves_fewer(live, before) -> None:
    best = min(
        moves(before, list(after), live)
        for after in product(live, repeat=len(before))
        if balanced(list(after), live)
    )
    assert moves(before, place(live, before), live) == best


@given(shares, owners)
def test_a_hand_over_half_done_is_continued_not_reconsidered(live, before) -> None:
    after = place(live, before)
    halfway: list[str | None] = [b if b == a else None for b, a in zip(before, after, strict=True)]
    assert moves(halfway, place(live, halfway), live) == 0


def test_without_hosts_nobody_owns_anything() -> None:
    assert place({}, ["a", None]) == [None, None]


def test_a_joining_host_takes_its_share_from_each_and_nothing_else_moves() -> None:
    before: list[str | None] = [*["a"] * 6, *["b"] * 6]
    after = place({"a": 1, "b": 1, "c": 1}, before)
    assert after == ["a"] * 4 + ["c"] * 2 + ["b"] * 4 + ["c"] * 2
