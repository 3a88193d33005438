"""A relay in threads of its own: it can act while the event loop of the client stands still."""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator

CHUNK_BYTES = 2**16
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER: on, for no time at all."""


class Relay:
    """Forwards until it is told to break; `port` is where it listens."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.breaks = threading.Event()
        """Hand on one more answer, and reset that connection at once."""
        self.broke = threading.Event()
        """Set when that is done."""
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                for pump in (self._requests, self._answers):
                    threading.Thread(target=pump, args=(client, server), daemon=True).start()

    def _requests(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError), client, server:
            while chunk := client.recv(CHUNK_BYTES):
                server.sendall(chunk)
        # Only now: while somebody reads from a socket, closing it resets nothing.
        self.broke.set()

    def _answers(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError), client, server:
            while chunk := server.recv(CHUNK_BYTES):
                client.sendall(chunk)
                if self.breaks.is_set():
                    self.breaks.clear()
                    self.broke.clear()
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                    client.shutdown(socket.SHUT_RD)
                    return

    def close(self) -> None:
        self._listener.close()


@contextmanager
def relayed(url: str) -> Iterator[tuple[Relay, str]]:
    """Yield a relay and the URL that leads through it."""
    parts = urlsplit(url)
    assert parts.hostname
    relay = Relay((parts.hostname, parts.port or 5432))
    user_info = parts.netloc.rpartition("@")[0]
    through = parts._replace(netloc=f"{user_info}@127.0.0.1:{relay.port}")
    try:
        yield relay, through.geturl()
    finally:
        relay.close()
