"""Links within one event loop."""

import asyncio

from shardrt.links.inprocess import connect_in_process
from tests.links.ends import End
from tests.loops import in_loop


@in_loop
async def test_messages_pass_as_they_are_in_batches() -> None:
    near, far = End(), End()
    link = connect_in_process(near.accept, far.accept)
    messages = [object() for _ in range(10)]
    for message in messages:
        link.send(message)
    assert far.messages == []
    await far.until(lambda: bool(far.messages))
    assert far.messages == messages
    assert far.batches == [10]
    far.link.send("answer")
    await near.until(lambda: near.messages == ["answer"])


@in_loop
async def test_both_ends_are_told_of_the_end_once_after_what_was_sent() -> None:
    near, far = End(), End()
    link = connect_in_process(near.accept, far.accept)
    link.send(1)
    link.close()
    link.close()
    await far.until(lambda: far.closed == 1)
    assert (near.closed, far.messages) == (1, [1])
    link.send(2)
    await asyncio.sleep(0)
    assert far.messages == [1]
    assert not link.is_open
    assert not far.link.is_open
