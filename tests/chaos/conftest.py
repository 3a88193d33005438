"""What all trials need: a server that keeps its promises, and a way to say what happened."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from shardrt.testing.postgres import PostgresServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Show = Callable[[str], None]


@pytest.fixture
def show(capsys: pytest.CaptureFixture[str]) -> Show:
    """Write a line past pytest's capture: what was killed is worth reading in any case."""

    def write(line: str) -> None:
        with capsys.disabled():
            sys.stdout.write(line + "\n")

    return write


@pytest.fixture
def postgres() -> Iterator[PostgresServer]:
    with PostgresServer(fsync=True) as server:
        yield server
