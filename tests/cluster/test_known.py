"""What a later view of a hub must not contradict."""

from __future__ import annotations

from msgspec.structs import replace

from shardrt.cluster.holdings import Holding, Holdings, Phase
from shardrt.cluster.known import Known
from tests.cluster.test_holdings import ME, host, view


def known(epoch: int = 3, held: int | None = None) -> Known:
    holdings = Holdings()
    if held is not None:
        holdings.held[0] = Holding(epoch=held, phase=Phase.SERVING, since_s=0)
    return Known.of(view([ME, None], host(ME), epoch=epoch), holdings)


def test_nothing_is_known_at_first() -> None:
    assert Known().contradicted_by(view([ME], host(ME))) == ""


def test_what_has_grown_contradicts_nothing() -> None:
    assert known().contradicted_by(view([ME, None], epoch=3)) == ""
    assert known().contradicted_by(view([None, ME], epoch=9)) == ""


def test_a_claim_that_was_answered_is_known() -> None:
    later = view([ME, None], epoch=3)
    assert known(held=4).contradicted_by(later) == "partition 0 is at epoch 3, it was at 4"
    assert known(held=3).contradicted_by(later) == ""


def test_a_hub_with_fewer_partitions_is_another_one() -> None:
    assert known().contradicted_by(view([ME])) == "partition 1 is gone"


def test_an_identity_that_cannot_be_told_says_nothing() -> None:
    seen = view([ME], host(ME))
    told = Known.of(replace(seen, identity="7/1"), Holdings())
    assert told.contradicted_by(seen) == ""
    assert told.contradicted_by(replace(seen, identity="7/1")) == ""
    assert told.contradicted_by(replace(seen, identity="7/2")) == "its data is 7/2, it was 7/1"
