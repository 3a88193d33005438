"""Middleware in the shards of a host of its own processes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.e2e.conftest import UNSAFE
from tests.serving import Served

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.proc, pytest.mark.slow]


def test_shards_wrap_activities_and_refuse_what_is_vetoed(store_url: str, tmp_path: Path) -> None:
    app = "tests.e2e.middleware_app:app"
    host = Served(store_url, tmp_path, "--shards", "2", app=app, variables=UNSAFE)
    try:
        host.start()
        assert host.cli("start", "tour", "--id", "t", "--input", "5").returncode == 0
        assert host.ask("wait", "t")["output"] == [[5, "seen"]] * 3
        vetoed = host.cli("start", "tour", "--id", "bad", "--input", "13")
        assert vetoed.returncode == 1
        assert "13 brings bad luck" in vetoed.stderr
        assert host.cli("get", "bad").returncode == 1
        lines = [line.split() for line in (tmp_path / "seen").read_text().splitlines()]
        assert sorted(line[:2] for line in lines) == [
            ["in_loop", "5"],
            ["in_process", "5"],
            ["in_thread", "5"],
        ]
        assert {int(line[2]) for line in lines} <= set(host.children("shard"))
    finally:
        host.close()
