"""The dialling end of links between hosts; what is at the other end is in tests/http/test_peers."""

from __future__ import annotations

import asyncio
import logging

import pytest

from shardrt.config import Tokens
from shardrt.errors import ConfigInvalid
from shardrt.links import peer
from shardrt.links.peer import keep_peer, peer_url, target_of
from shardrt.links.websocket import dial_websocket
from tests.links.ends import End
from tests.loops import in_loop
from tests.waiting import eventually


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("http://10.0.0.7:8520", "ws://10.0.0.7:8520/link/host"),
        ("https://orders.example/shardrt/", "wss://orders.example/shardrt/link/host"),
        ("http://[::1]:8520", "ws://[::1]:8520/link/host"),
    ],
)
def test_the_link_is_below_the_address_and_names_the_owner(address: str, url: str) -> None:
    target = target_of(address, "b/1 &x")
    assert peer_url(target) == f"{url}?protocol=1&owner=b%2F1%20%26x"


def test_an_address_that_is_none_is_told() -> None:
    with pytest.raises(ConfigInvalid):
        peer_url(target_of("nonsense", "b/1"))


@in_loop
async def test_a_host_that_cannot_be_reached_is_told_of_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer, "QUIET_S", 0.0)
    monkeypatch.setattr(peer, "PAUSE_S_MAX", 0.001)
    caplog.set_level(logging.WARNING)
    attempts = 0
    dial = dial_websocket

    async def counted(*args: object, **options: object) -> object:
        nonlocal attempts
        attempts += 1
        return await dial(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(peer, "dial_websocket", counted)
    target = target_of("http://127.0.0.1:9", "b/1")
    keeping = asyncio.ensure_future(
        keep_peer(target, End().accept, tokens=Tokens(), payload_bytes_max=1000)
    )
    await eventually(lambda: attempts > 5)
    (record,) = caplog.records
    assert record.getMessage() == (
        "host b at http://127.0.0.1:9 cannot be reached: cannot reach http://127.0.0.1:9: "
        "connection refused"
    )
    monkeypatch.setattr(peer, "QUIET_S", 3600.0)
    caplog.clear()
    keeping.cancel()
    keeping = asyncio.ensure_future(
        keep_peer(target, End().accept, tokens=Tokens(), payload_bytes_max=1000)
    )
    await eventually(lambda: attempts > 10)
    assert caplog.records == []
    keeping.cancel()
