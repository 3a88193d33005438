"""A way that can be broken: TCP connections led somewhere else, unless told otherwise.

Three ways in which it breaks. *Cut*: connections are reset, and new ones, too. *Held*: nothing
passes and nobody is told, as in a network that drops packets; once it is healed, what was
under way arrives after all, however late. That is how a write of an owner of long ago comes to
the store. *Muted*: what goes in one of its directions is gone, while the other one is as ever; once
it is healed, connections that have lost something are reset, as their ends would find out sometime.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress

HERE = "127.0.0.1"
IN, OUT = "in", "out"
"""Directions: towards where it leads, and back to who has come along it."""
CHUNK_BYTES = 64 * 1024


class FaultProxy:
    """Leads from `port`, on all addresses or one, to another; all of it on one event loop."""

    def __init__(self, target_port: int, target: str = HERE, *, bind: str = HERE) -> None:
        self.port = 0
        """Where it listens; known once started."""
        self._target = target, target_port
        self._bind = bind
        self._server: asyncio.Server | None = None
        self._flows = asyncio.Event()
        self._flows.set()
        self._refuses = False
        self._muted: asyncio.Event | None = None
        """Set when that is over."""
        self._mute = ""
        self._writers: set[asyncio.StreamWriter] = set()
        self._ways: set[asyncio.Task[None]] = set()
        self._closed = False

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._come, self._bind, 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        self._closed = True
        if self._server is not None:
            # asyncio forgets, open, whom it has let in but not attached to a server that closes.
            for listener in self._server.sockets:
                asyncio.get_running_loop().remove_reader(listener)
            await asyncio.sleep(0)
            self._server.close()
        self.cut()
        for way in self._ways:
            way.cancel()
        await asyncio.gather(*self._ways, return_exceptions=True)

    def cut(self) -> None:
        """Reset every connection, and each new one."""
        self._refuses = True
        for writer in self._writers:
            # Without this it would be an orderly end. One that has just ended has no socket.
            with suppress(OSError):
                writer.get_extra_info("socket").setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                )
            writer.transport.abort()

    def hold(self) -> None:
        """Let nothing pass, and keep what comes."""
        self._flows.clear()

    def mute(self, direction: str) -> None:
        """Let nothing pass in one direction, and forget what comes."""
        self._mute, self._muted = direction, asyncio.Event()

    def heal(self) -> None:
        """Let everything pass, also what was kept."""
        self._refuses = False
        self._flows.set()
        if self._muted is not None:
            self._muted.set()
            self._muted = None

    def _come(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._closed:
            writer.transport.abort()
            return
        # Not left to the task, which may be cancelled before it has begun.
        self._writers.add(writer)
        way = asyncio.create_task(self._lead(reader, writer))
        self._ways.add(way)
        way.add_done_callback(self._ways.discard)

    async def _lead(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers = [writer]
        try:
            await self._flows.wait()
            if not self._refuses:
                far_reader, far_writer = await asyncio.open_connection(*self._target)
                writers.append(far_writer)
                self._writers.add(far_writer)
                async with asyncio.TaskGroup() as pumps:
                    pumps.create_task(self._pump(reader, far_writer, IN))
                    pumps.create_task(self._pump(far_reader, writer, OUT))
        except* OSError:
            pass  # whoever it was on one side, the other is told by the end of its connection
        finally:
            for each in writers:
                self._writers.discard(each)
                each.transport.abort()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: str
    ) -> None:
        while chunk := await reader.read(CHUNK_BYTES):
            await self._way_is_free(direction)
            writer.write(chunk)
            await writer.drain()
        await self._way_is_free(direction)
        if not writer.transport.is_closing():
            writer.write_eof()

    async def _way_is_free(self, direction: str) -> None:
        await self._flows.wait()
        if self._muted is not None and self._mute == direction:
            await self._muted.wait()
            raise ConnectionResetError("what was to pass meanwhile is lost")
