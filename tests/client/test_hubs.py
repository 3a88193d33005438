"""Lines to hosts of several hubs, which one client should not be given, in virtual time."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from shardrt.errors import ConnectionLost
from shardrt.links.frames import Codec
from shardrt.links.messages import PROTOCOL, ToClient, Welcome
from shardrt.testing.virtual import pass_time
from tests.client.several_hosts import Host, opened, started, virtual

ALL = (0, 1, 2, 3)


@virtual
async def test_a_host_of_another_hub_is_not_asked_even_if_there_is_no_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    a, b = Host(hub="one"), Host(*ALL, hub="other", name="b")
    async with opened(a, b, call_timeout_s=10.0) as session:
        await pass_time(5.0)
        calls = await started(session, "x!0", "x!1")
        a.answer(1, 2)
        await asyncio.gather(*calls)
        said = [text for name, _, text in caplog.record_tuples if name == "shardrt.client.lines"]
        assert [each.partition(":")[0] for each in said] == [
            "host b is of another hub than the others, and is not asked"
        ], "once"
        a.trouble = ConnectionLost("away")
        a.link.close()
        [call] = await started(session, "x!0")
        await pass_time(11.0)
        assert not session.is_connected
        with pytest.raises(ConnectionLost):
            await call
        assert b.taken() == []
        assert b.closed == b.opened > 2


@virtual
async def test_the_hub_is_another_one_if_all_hosts_were_away_meanwhile() -> None:
    a, b = Host(*ALL, hub="one"), Host(hub="one")
    a.era = b.era = 2
    async with opened(a, b) as session:
        for host in (a, b):
            host.trouble = ConnectionLost("away")
            host.link.close()
        await pass_time(2.0)
        for host in (a, b):
            host.welcome = msgspec.structs.replace(host.welcome, hub_id="new")
            host.era, host.trouble = 0, None
        await pass_time(2.0)
        [call] = await started(session, "x!0")
        assert a.taken() == [1]
        a.answer(1)
        await call
        assert (a.opened, b.opened) == (2, 2)


@virtual
async def test_hosts_too_old_to_name_their_hub_are_taken_for_hosts_of_it() -> None:
    a, b, c, d = Host(0), Host(1, hub="one"), Host(2), Host(3, hub="other")
    async with opened(a, b, c, d) as session:
        calls = await started(session, *(f"x!{each}" for each in range(4)))
        assert (a.taken(), b.taken(), c.taken(), d.taken()) == ([1, 4], [2], [3], [])
        b.trouble = ConnectionLost("away")
        b.link.close()
        await pass_time(5.0)
        assert d.closed == d.opened > 2, "what b has said still counts"
        a.answer(1, 2, 4)
        c.answer(3)
        await asyncio.gather(*calls)


class OldWelcome(msgspec.Struct, frozen=True, array_like=True, tag="welcome"):
    """`Welcome` before it named the hub."""

    protocol: int
    version: str
    partitions: int
    host_id: str
    payload_bytes_max: int


def test_old_clients_are_let_in_by_new_hosts_and_new_clients_by_old_ones() -> None:
    new = Codec(ToClient).encode([Welcome(PROTOCOL, "1", 4, "a", 1000, "hub")])[0]
    assert Codec(OldWelcome).decode(new) == [OldWelcome(PROTOCOL, "1", 4, "a", 1000)]
    old = Codec(ToClient).encode([OldWelcome(PROTOCOL, "0", 4, "a", 1000)])[0]
    assert Codec(ToClient).decode(old) == [Welcome(PROTOCOL, "0", 4, "a", 1000, hub_id="")]
