"""Why an instance does not move, if its owner cannot be asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from msgspec import Raw

from shardrt.client.explaining import explain
from shardrt.core.ids import partition_of
from shardrt.errors import PartitionUnavailable
from tests.loops import in_loop

if TYPE_CHECKING:
    from shardrt.core.requests import Request, Result
    from shardrt.links.admin import Question

HERE = partition_of("a", 2)


class Ownerless:
    """A hub in which nobody answers for an instance, and what it says of itself."""

    def __init__(self, cluster: bytes) -> None:
        self.cluster = cluster

    async def call(self, instance_id: str, request: Request) -> Result | None:
        raise PartitionUnavailable(f"partition {HERE} is moving")

    async def ask(self, question: Question) -> Raw:
        return Raw(self.cluster)


@pytest.mark.parametrize(
    ("cluster", "reason"),
    [
        (b"null", f"partition {HERE} is moving"),
        (b"{}", f"partition {HERE} is moving"),
        (
            b'{"partitions": [{"partition": 0}, {"partition": 1}]}',
            f"partition {HERE} has no owner",
        ),
        (
            b'{"partitions": [{"partition": %d, "owner": "h", "trouble": "CRC"}, {"partition": 9}]}'
            % HERE,
            f"partition {HERE} of h does not answer: CRC",
        ),
    ],
)
@in_loop
async def test_the_owner_that_is_missing_is_the_answer(cluster: bytes, reason: str) -> None:
    explanation = await explain(Ownerless(cluster), "a")
    assert explanation.status is None
    assert [(each.kind, each.reason) for each in explanation.awaited] == [("owner", reason)]
    assert explanation.summary == reason
