"""Who is blamed for the death of a shard."""

from __future__ import annotations

from shardrt.core.ids import partition_of
from shardrt.host.black_box import Found, Orchestrator, Suspect
from shardrt.links.control import DEATHS_MAX, Blamed, Condemned
from shardrt.supervisor.blame import WINDOW_S, Blames

TURN = Suspect("poison!1")
LONG = Suspect("long!1", "exec", 3)
BAD = Suspect("bad!1", "exec", 4)


def blames() -> Blames:
    return Blames(4)


def test_what_the_loop_was_in_is_blamed_alone() -> None:
    one = blames()
    assert one.died(Found(TURN, (BAD,), (LONG,)), 1.0) == [(TURN, 1)]
    assert one.died(Found(TURN, (BAD,), (LONG,)), 2.0) == [(TURN, 2)]
    assert one.of(1, 3.0) == [Blamed("poison!1", deaths=2)]
    assert one.of(0, 3.0) == []
    assert partition_of("poison!1", 4) == 1


def test_deaths_long_ago_do_not_count() -> None:
    one = blames()
    one.died(Found(TURN), 0.0)
    one.died(Found(TURN), 1.0)
    assert one.died(Found(TURN), WINDOW_S) == [(TURN, 2)]
    assert one.of(1, 2 * WINDOW_S) == []
    assert one.records == {}


def test_nothing_found_blames_nobody() -> None:
    one = blames()
    assert one.died(Found(), 0.0) == []
    assert one.of(1, 0.0) == []


def test_one_of_many_threads_is_found_by_running_alone() -> None:
    one = blames()
    assert one.died(Found(in_threads=(LONG, BAD)), 1.0) == [(LONG, 1), (BAD, 1)]
    # Those who merely ran beside are not suspected more and more.
    assert one.died(Found(in_threads=(LONG, BAD)), 2.0) == []
    assert one.died(Found(alone=(BAD,), in_threads=(LONG,)), 3.0) == [(BAD, 2)]
    assert one.died(Found(alone=(BAD,), in_threads=(LONG,)), 4.0) == [(BAD, DEATHS_MAX)]
    assert [each.deaths for each in one.of(1, 5.0)] == [1, DEATHS_MAX]


def test_a_verdict_in_the_journal_is_forgotten_here() -> None:
    one = blames()
    entity = Suspect("@counter@a!1")
    for now_s in range(DEATHS_MAX):
        for suspect in (TURN, BAD, entity):
            one.died(Found(suspect), now_s)
    one.died(Found(Suspect("twice!1")), 9.0)
    one.opened(0)
    assert len(one.of(1, 10.0)) == 4
    one.opened(1)
    left = [each.instance_id for each in one.of(1, 10.0)]
    assert left == ["bad!1", "@counter@a!1", "twice!1"]


SPIN = Orchestrator("spin", "2")


def turn(number: int, code: Orchestrator = SPIN) -> Found:
    return Found(Suspect(f"i{number}!1"), orchestrator=code)


def test_an_orchestrator_is_condemned_when_several_of_its_instances_provably_did_it() -> None:
    one = blames()
    for number in (0, 0, 0, 1, 1, 1):
        one.died(turn(number), 1.0, is_proof=True)
    one.died(turn(2), 2.0)  # somebody killed it
    one.died(turn(2, Orchestrator("spin")), 2.0, is_proof=True)
    assert one.condemned == {}
    one.died(turn(2), 3.0, is_proof=True)
    assert one.condemned == {SPIN: Condemned("spin", "2", 3)}
    one.died(turn(3), 4.0, is_proof=True)
    assert one.condemned == {SPIN: Condemned("spin", "2", 3)}


def test_it_takes_instances_of_the_same_minutes() -> None:
    one = blames()
    for number in range(4):
        one.died(turn(number), WINDOW_S * number / 2, is_proof=True)
    assert one.condemned == {}


def test_a_pardon_is_a_clean_record() -> None:
    one = blames()
    for number in range(3):
        one.died(turn(number), 1.0, is_proof=True)
    one.pardon(SPIN)
    one.died(turn(4), 2.0, is_proof=True)
    assert one.condemned == {}


def test_shards_note_what_they_run_for_a_while_after_a_death() -> None:
    one = blames()
    assert not one.watches(1.0)
    one.died(Found(), 1.0)
    assert one.watches(1.0 + WINDOW_S - 1)
    assert not one.watches(1.0 + WINDOW_S)
