"""The control link between a supervisor and a child."""

import asyncio
import socket

from shardrt.links import control
from shardrt.links.control_link import FRAME_BYTES_MAX, ControlLink, connect_control


class End:
    """One end of a link, with what arrived there."""

    def __init__(self) -> None:
        self.messages: list[object] = []
        self.arrived = asyncio.Event()
        self.closed = 0
        self.link: ControlLink

    async def connect(self, fd: int, decoder_type: object) -> "End":
        self.link = await connect_control(fd, decoder_type, self._message, self._ended)
        return self

    def _message(self, message: object) -> None:
        self.messages.append(message)
        self.arrived.set()

    def _ended(self) -> None:
        self.closed += 1

    async def wait_for(self, count: int) -> None:
        async with asyncio.timeout(5):
            while len(self.messages) < count:
                self.arrived.clear()
                await self.arrived.wait()


async def pair() -> tuple[End, End]:
    ours, theirs = socket.socketpair()
    parent = await End().connect(ours.detach(), control.FromChild)
    child = await End().connect(theirs.detach(), control.ToChild)
    return parent, child


def test_messages_arrive_in_order_both_ways() -> None:
    async def main() -> None:
        parent, child = await pair()
        sent = [control.Assign(partition, 7) for partition in range(500)]
        for message in sent:
            parent.link.send(message)
        beat = control.Beat({3: (5, 4, 1)}, {"commits": 2.0}, ["activity charge"])
        child.link.send(control.Ready(17, 8520), beat)
        await child.wait_for(len(sent))
        await parent.wait_for(2)
        assert child.messages == sent
        assert parent.messages == [control.Ready(17, 8520), beat]
        parent.link.close()
        async with asyncio.timeout(5):
            await child.link.wait_closed()

    asyncio.run(main())


def test_what_was_sent_before_close_still_arrives_and_both_ends_learn_of_the_end_once() -> None:
    async def main() -> None:
        parent, child = await pair()
        child.link.send(control.Fatal("no module named 'x'"))
        child.link.close()
        async with asyncio.timeout(5):
            await parent.link.wait_closed()
            await child.link.wait_closed()
        parent.link.send(control.Stop(1.0))  # dropped in silence
        assert parent.messages == [control.Fatal("no module named 'x'")]
        assert (parent.closed, child.closed) == (1, 1)

    asyncio.run(main())


def test_a_frame_that_is_not_of_the_protocol_ends_the_link() -> None:
    async def main(frame: bytes) -> None:
        raw, theirs = socket.socketpair()
        child = await End().connect(theirs.detach(), control.ToChild)
        raw.sendall(frame)
        async with asyncio.timeout(5):
            await child.link.wait_closed()
        assert (child.messages, child.closed) == ([], 1)
        raw.close()

    body = b'[["launch",1]]'
    asyncio.run(main(len(body).to_bytes(4, "big") + body))
    asyncio.run(main((FRAME_BYTES_MAX + 1).to_bytes(4, "big")))
