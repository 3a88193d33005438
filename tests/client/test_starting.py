from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from shardrt.client import starting
from shardrt.client.starting import new_instance_id

if TYPE_CHECKING:
    import pytest

MANY = 1_000
START_NS = 1_700_000_000_000_000_000


def test_ids_made_later_sort_later(monkeypatch: pytest.MonkeyPatch):
    made = []
    for number in range(MANY):
        monkeypatch.setattr(starting, "time_ns", lambda at=START_NS + number * 1_000_000: at)
        made.append(new_instance_id())
    assert made == sorted(made)


def test_ids_of_one_moment_differ(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(starting, "time_ns", lambda: START_NS)
    made = {new_instance_id() for _ in range(MANY)}
    assert len(made) == MANY
    for each in made:
        assert uuid.UUID(each).hex == each
        assert uuid.UUID(each).version == 7
        assert uuid.UUID(each).variant == uuid.RFC_4122
        assert int(each[:12], 16) == START_NS // 1_000_000
