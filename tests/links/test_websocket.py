"""The client's end of a link over WebSocket, against a server of the websockets library."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from msgspec import Raw
from websockets.asyncio.server import ServerConnection, serve

from shardrt.errors import ConfigInvalid, ConnectionLost, Unauthorized
from shardrt.links import stream, websocket
from shardrt.links.messages import Answer, Ask, ToClient
from shardrt.links.websocket import dial_websocket, link_url
from tests.links.ends import End
from tests.loops import in_loop


@asynccontextmanager
async def serving(handler: Any, **options: Any) -> AsyncIterator[str]:
    async with serve(handler, "127.0.0.1", 0, **options) as server:
        host, port = next(iter(server.sockets)).getsockname()[:2]
        yield f"ws://{host}:{port}"


async def answer_all(connection: ServerConnection) -> None:
    """Answer what comes in one frame with one frame."""
    async for frame in connection:
        answers = [Answer(ask[1], Raw(b"true")) for ask in msgspec.json.decode(frame)]
        await connection.send(msgspec.json.encode(answers))


@in_loop
async def test_what_is_sent_in_one_turn_is_one_frame() -> None:
    async with serving(answer_all) as url:
        end = End()
        link = await dial_websocket(url, None, ToClient, end.accept)
        for seq in range(1000):
            link.send(Ask(seq, Raw(b"0")))
        await end.until(lambda: len(end.messages) == 1000)
        assert end.messages == [Answer(seq, Raw(b"true")) for seq in range(1000)]
        assert end.batches == [1000]
        link.close()
        await end.until(lambda: end.closed == 1)


@in_loop
async def test_fragments_and_text_are_taken_too() -> None:
    async def handler(connection: ServerConnection) -> None:
        await connection.send([b'[["ans', b'wer",1,2', b",null]]"])
        await connection.send('[["answer",2,"é",null]]')
        await connection.wait_closed()

    async with serving(handler) as url:
        end = End()
        link = await dial_websocket(url, None, ToClient, end.accept)
        await end.until(lambda: len(end.messages) == 2)
        assert end.messages == [Answer(1, Raw(b"2")), Answer(2, Raw('"é"'.encode()))]
        link.close()
        await end.until(lambda: end.closed == 1)


@pytest.mark.parametrize("sent", [b"[", "x", b'[["bogus"]]', b"\xff"])
@in_loop
async def test_a_host_that_talks_nonsense_is_left(sent: str | bytes) -> None:
    async def handler(connection: ServerConnection) -> None:
        await connection.send(sent)
        await connection.wait_closed()

    async with serving(handler) as url:
        end = End()
        await dial_websocket(url, None, ToClient, end.accept)
        await end.until(lambda: end.closed == 1)


@in_loop
async def test_the_end_of_the_host_is_told() -> None:
    async def handler(connection: ServerConnection) -> None:
        await connection.close()

    async with serving(handler) as url:
        end = End()
        link = await dial_websocket(url, None, ToClient, end.accept)
        await end.until(lambda: end.closed == 1)
        assert not link.is_open


@in_loop
async def test_what_is_sent_after_the_host_has_said_goodbye_is_lost_in_silence() -> None:
    errors: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))

    async def handler(connection: ServerConnection) -> None:
        connection.protocol.send_binary(msgspec.json.encode([Answer(1, Raw(b"true"))]))
        connection.protocol.send_close(1000)
        connection.send_data()  # at once, so that it arrives at once
        await connection.wait_closed()

    async with serving(handler) as url:
        end = End()
        end.on_batch = lambda _: end.link.send(Ask(2, Raw(b"0")))
        await dial_websocket(url, None, ToClient, end.accept)
        await end.until(lambda: end.closed == 1)
        assert end.messages == [Answer(1, Raw(b"true"))]
    assert not errors


@in_loop
async def test_a_silent_host_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "TICK_S", 0.001)
    release = asyncio.Event()

    async def handler(connection: ServerConnection) -> None:
        connection.transport.pause_reading()
        await release.wait()

    async with serving(handler, ping_interval=None, close_timeout=0.1) as url:
        end = End()
        await dial_websocket(url, None, ToClient, end.accept)
        await end.until(lambda: end.closed == 1)
        release.set()


@in_loop
async def test_a_link_to_a_frozen_host_is_closed_though_something_is_unsent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stream, "CLOSE_S", 0.01)
    release = asyncio.Event()

    async def handler(connection: ServerConnection) -> None:
        connection.transport.pause_reading()
        await release.wait()

    async with serving(handler, ping_interval=None, close_timeout=0.1) as url:
        end = End()
        link = await dial_websocket(url, None, ToClient, end.accept)
        for _ in range(40):
            link.send(Ask(1, Raw(b'"' + b"x" * 1_000_000 + b'"')))
        link.close()
        assert not link.is_open
        await end.until(lambda: end.closed == 1)
        release.set()


@in_loop
async def test_the_token_is_shown_and_its_refusal_told() -> None:
    seen = []

    def check(connection: ServerConnection, request: Any) -> Any:
        seen.append(request.headers.get("Authorization"))
        return connection.respond(401, "no")

    async with serving(answer_all, process_request=check) as url:
        with pytest.raises(Unauthorized):
            await dial_websocket(url, "secret", ToClient, End().accept)
    assert seen == ["Bearer secret"]


@in_loop
@pytest.mark.parametrize("status", [404, 403])  # 403: a web app without WebSockets there
async def test_a_server_that_is_no_host_is_told_apart(status: int) -> None:
    def check(connection: ServerConnection, request: Any) -> Any:
        return connection.respond(status, "no")

    async with serving(answer_all, process_request=check) as url:
        with pytest.raises(ConnectionLost, match=f"answers {status}"):
            await dial_websocket(url, None, ToClient, End().accept)


@in_loop
async def test_a_server_that_speaks_something_else_is_told_apart() -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"220 smtp.example.org\r\n")
        writer.close()

    server = await asyncio.start_server(handler, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(ConnectionLost, match="does not speak WebSocket"):
        await dial_websocket(f"http://127.0.0.1:{port}", None, ToClient, End().accept)
    server.close()
    await server.wait_closed()


@in_loop
async def test_a_server_that_keeps_silent_can_be_given_up() -> None:
    gone = asyncio.Event()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        await writer.wait_closed()
        gone.set()

    server = await asyncio.start_server(handler, "127.0.0.1", 0)
    async with server:
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await dial_websocket(url, None, ToClient, End().accept)
        await gone.wait()


@in_loop
async def test_a_host_that_is_not_there_is_told_in_one_line() -> None:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    with pytest.raises(ConnectionLost) as lost:
        await dial_websocket(f"http://127.0.0.1:{port}", None, ToClient, End().accept)
    assert str(lost.value) == f"cannot reach http://127.0.0.1:{port}: connection refused"


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("http://127.0.0.1:8520", "ws://127.0.0.1:8520/link"),
        ("http://127.0.0.1:8520/", "ws://127.0.0.1:8520/link"),
        ("https://host", "wss://host/link"),
        ("ws://host:1/link", "ws://host:1/link"),
        ("wss://host/some/path", "wss://host/some/path/link"),
        ("http://[::1]:80", "ws://[::1]:80/link"),
    ],
)
def test_urls_of_hosts(url: str, found: str) -> None:
    assert link_url(url) == found


@pytest.mark.parametrize("url", ["", "host:8520", "ftp://host", "http://", "http://host:x"])
def test_what_is_no_url_of_a_host(url: str) -> None:
    with pytest.raises(ConfigInvalid, match="URL"):
        link_url(url)
