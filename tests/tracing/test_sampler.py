"""A share of the traces, and no more in a second than may be."""

from __future__ import annotations

from random import Random

from shardrt.tracing.sampler import Sampler


def taken(sampler: Sampler, count: int, random: Random) -> int:
    return sum(sampler.takes(random.getrandbits(128)) for _ in range(count))


def test_a_share_is_taken_by_the_low_bits_of_the_id() -> None:
    random = Random(1)
    assert taken(Sampler(0.0, 0), 1000, random) == 0
    assert taken(Sampler(1.0, 0), 1000, random) == 1000
    assert 80 < taken(Sampler(0.1, 0), 1000, random) < 120
    assert Sampler(0.5, 0).takes(2**127 + 2**62)
    assert not Sampler(0.5, 0).takes(2**63)


def test_beyond_a_rate_no_more_are_taken() -> None:
    now, random = [100.0], Random(1)
    sampler = Sampler(1.0, 10, lambda: now[0])
    assert taken(sampler, 1000, random) == 10
    now[0] += 0.25
    assert taken(sampler, 1000, random) == 2
    now[0] += 0.0625  # the half that was left over counts
    assert taken(sampler, 1000, random) == 1
    now[0] += 3600
    assert taken(sampler, 1000, random) == 10


def test_a_slow_rate_lets_one_pass_at_a_time() -> None:
    now, random = [0.0], Random(1)
    sampler = Sampler(1.0, 0.5, lambda: now[0])
    assert taken(sampler, 10, random) == 1
    now[0] += 1.9
    assert taken(sampler, 10, random) == 0
    now[0] += 0.1
    assert taken(sampler, 10, random) == 1


def test_what_is_not_drawn_uses_up_nothing() -> None:
    sampler = Sampler(0.5, 1, lambda: 0.0)
    assert not any(sampler.takes(2**63) for _ in range(100))
    assert sampler.takes(1)
