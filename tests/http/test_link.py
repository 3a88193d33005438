"""The endpoint of clients' links: frames that make no sense, and clients that do not read."""

import asyncio
from typing import Any, Self

import msgspec
import pytest
from msgspec import Raw
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from shardrt.config import Tokens
from shardrt.http import link as link_module
from shardrt.http.link import LinkEndpoint
from shardrt.links.base import Link
from shardrt.links.messages import Answer, Call, Hello
from tests.fake_host import LIMITS, FakeHost
from tests.links.ends import End
from tests.loops import in_loop
from tests.waiting import eventually

HELLO = b'[["hello","session"]]'


def link(host: FakeHost) -> Any:
    return connect(f"ws://127.0.0.1:{host.port}/link", compression=None, max_size=None)


async def greeted(connection: ClientConnection) -> ClientConnection:
    await connection.send(HELLO)
    ((kind, *_),) = msgspec.json.decode(await connection.recv())
    assert kind == "welcome"
    return connection


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"{",
        "null",
        b"[1]",
        b'[["bogus"]]',
        b'[["call",1,1,"a"]]',
        b'[["call",1,1,"a",["get"]]]\xff',
        b'[["call",1,1,"a",["raise","e","\xff"]]]',
        b'[["call",1,1,"a",' + b"[" * 30_000 + b"]" * 30_000 + b"]]",
        b'[["call",-1,1,"a",["get"]]]',
        b'[["call",123456789012345678901234567890,1,"a",["get"]]]',
    ],
)
@in_loop
async def test_a_client_that_talks_nonsense_is_let_go_alone(frame: str | bytes) -> None:
    async with FakeHost.running() as host, await host.client() as other, link(host) as connection:
        await greeted(connection)
        await connection.send(frame)
        with pytest.raises(ConnectionClosed) as closed:
            await connection.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1002
        await other.start("hello", instance_id="still-works")
        assert len(host.shard.links) == 1


@pytest.mark.parametrize(
    "request_", [b'["nope"]', b"7", b'["raise"]', b'["raise",7]', b'["start","x",null,5]']
)
@in_loop
async def test_what_is_no_request_is_refused_alone(request_: bytes) -> None:
    async with FakeHost.running() as host, await host.client() as other, link(host) as connection:
        await greeted(connection)
        good = b'["call",2,1,"b",["get"]]'
        await connection.send(b'[["call",1,1,"a",' + request_ + b"]," + good + b"]")
        answers: list[Any] = []
        while len(answers) < 2:
            answers += msgspec.json.decode(await connection.recv())
        assert sorted(answers) == [
            ["answer", 1, None, ["ProtocolViolation", "not a request", None]],
            ["answer", 2, None, None],
        ]
        await other.start("hello", instance_id="still-works")
        assert len(host.shard.links) == 1


@in_loop
async def test_the_first_message_must_be_a_hello() -> None:
    async with FakeHost.running() as host, link(host) as connection:
        await connection.send(b'[["call",1,1,"a",["get"]]]')
        with pytest.raises(ConnectionClosed):
            await connection.recv()


@in_loop
async def test_text_frames_are_taken_and_answers_are_binary() -> None:
    async with FakeHost.running() as host, link(host) as connection:
        await connection.send(HELLO.decode())
        assert isinstance(await connection.recv(), bytes)
        await connection.send('[["call",1,1,"é",["get"]],["call",2,2,"b",["get"]]]')
        answers = msgspec.json.decode(await connection.recv())
        assert answers == [["answer", 1, None, None], ["answer", 2, None, None]]


@in_loop
async def test_a_frame_over_the_limit_ends_the_link() -> None:
    async with FakeHost.running() as host, link(host) as connection:
        await greeted(connection)
        await connection.send(b'[["call",1,1,"a",["get"]]' + b" " * (2 << 20) + b"]")
        with pytest.raises(ConnectionClosed) as closed:
            await connection.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code in (1002, 1009)


@in_loop
async def test_a_client_that_hangs_up_is_forgotten() -> None:
    async with FakeHost.running() as host:
        async with link(host) as connection:
            await greeted(connection)
            host.shard.hold = True
            await connection.send(b'[["call",1,1,"a",["get"]]]')
            await host.shard.until(lambda: bool(host.shard.held))
            assert host.gateway.calls_under_way == 1
        await eventually(lambda: not host.gateway.calls_under_way)


class Asgi:
    """The client's side of an endpoint, as an ASGI server would be."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.may_send = asyncio.Event()
        self.may_send.set()
        self.news = asyncio.Event()

    async def send(self, message: Any) -> None:
        await self.may_send.wait()
        self.sent.append(message)
        self.news.set()

    async def until_sent(self, kind: str) -> dict[str, Any]:
        while not any(message["type"] == kind for message in self.sent):
            self.news.clear()
            await self.news.wait()
        return next(message for message in self.sent if message["type"] == kind)

    def receive_frame(self, messages: list[Any]) -> None:
        body = msgspec.json.encode(messages)
        self.incoming.put_nowait({"type": "websocket.receive", "bytes": body})


class Serving:
    """An endpoint at work on one connection."""

    def __init__(self) -> None:
        self.asgi = Asgi()
        self.end = End()

    def accept(self, link: Link) -> End:
        return self.end.accept(link)

    async def __aenter__(self) -> Self:
        endpoint = LinkEndpoint(self.accept, Tokens(), LIMITS.payload_bytes_max)
        self.asgi.incoming.put_nowait({"type": "websocket.connect"})
        serving = endpoint(
            {"type": "websocket", "headers": []}, self.asgi.incoming.get, self.asgi.send
        )
        self.task = asyncio.create_task(serving)
        await self.end.until(lambda: self.end.opened == 1)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.asgi.may_send.set()
        self.asgi.incoming.put_nowait({"type": "websocket.disconnect"})
        await self.task
        assert self.end.closed == 1


@in_loop
async def test_who_does_not_read_is_not_read_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "UNREAD_BYTES_HIGH", 100)
    async with Serving() as serving:
        asgi, end = serving.asgi, serving.end
        asgi.may_send.clear()
        end.link.send(Answer(1))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        end.link.send(Answer(2, Raw(b'"' + b"x" * 200 + b'"')))
        assert end.link.is_congested
        asgi.receive_frame([Hello("a")])
        asgi.receive_frame([Hello("b")])
        await end.until(lambda: bool(end.messages))
        await asyncio.sleep(0)
        assert end.messages == [Hello("a")]
        asgi.may_send.set()
        await end.until(lambda: len(end.messages) == 2)
        assert not end.link.is_congested


@in_loop
async def test_who_lets_too_much_wait_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "UNREAD_BYTES_HIGH", 100)
    monkeypatch.setattr(link_module, "UNREAD_BYTES_MAX", 1000)
    async with Serving() as serving:
        asgi, end = serving.asgi, serving.end
        asgi.may_send.clear()
        for seq in range(10):
            end.link.send(Answer(seq, Raw(b'"' + b"x" * 200 + b'"')))
        assert not end.link.is_open
        asgi.may_send.set()
        closing = await asgi.until_sent("websocket.close")
        assert closing["code"] == 1013


@in_loop
async def test_answers_of_one_turn_leave_as_one_frame() -> None:
    async with Serving() as serving:
        for seq in range(50):
            serving.end.link.send(Answer(seq))
        frame = await serving.asgi.until_sent("websocket.send")
        assert len(msgspec.json.decode(frame["bytes"])) == 50


@in_loop
async def test_a_gone_client_ends_the_writer() -> None:
    async with Serving() as serving:

        async def gone(message: Any) -> None:
            raise OSError

        serving.asgi.receive_frame([Call(1, 1, "a", Raw(b"[]"))])
        await serving.end.until(lambda: bool(serving.end.messages))
        serving.end.link._send = gone  # type: ignore[attr-defined]
        serving.end.link.send(Answer(1))
        await serving.end.until(lambda: serving.end.closed == 1)
