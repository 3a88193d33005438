"""A port of its own for a runtime that is embedded in another program."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from shardrt.http.embedding import embedded_app
from shardrt.http.process import QuietServer, uvicorn_config
from shardrt.supervisor.prepare import address_of, bind

if TYPE_CHECKING:
    from shardrt.runtime import Runtime


class Listener:
    """Serves the HTTP API, clients and other hosts; listens once it is made.

    Raises:
        PortInUse: somebody else listens there.
        ConfigInvalid: this machine has no such address, or a certificate is none.
    """

    def __init__(self, runtime: Runtime) -> None:
        settings = runtime.settings
        settings.check_files()
        self._socket = bind(settings.host.bind, settings.host.port)
        self.address = address_of(settings.host, self._socket)
        """The URL at which others reach us."""
        config = uvicorn_config(embedded_app(runtime), settings.limits, settings.host)
        self._server = QuietServer(config)
        self._serving: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Answer who has come, and who comes from now on."""
        # Not of a task group: it lives from `start` to `close`, which awaits it.
        self._serving = asyncio.create_task(self._server.serve(sockets=[self._socket]))

    async def close(self) -> None:
        """End all links and listen no more."""
        self._server.should_exit = True
        if self._serving is not None:
            await self._serving
        self._socket.close()
