"""What a child process is given."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shardrt.host.interpreter import environment

if TYPE_CHECKING:
    import pytest


def test_shards_share_a_seed_for_hashes_and_gateways_keep_theirs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    assert environment("shard")["PYTHONHASHSEED"] == "0"
    assert "PYTHONHASHSEED" not in environment("gateway")


def test_a_seed_that_somebody_has_chosen_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONHASHSEED", "7")
    assert environment("shard")["PYTHONHASHSEED"] == "7"
