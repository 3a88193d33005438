"""Before the first child is started: what a host needs, checked, each failure one clear line."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import tempfile
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shardrt import __version__
from shardrt.cluster.identity import default_host_id
from shardrt.errors import ConfigInvalid, ShardrtError, StoreError
from shardrt.links import control
from shardrt.links.unix import PATH_BYTES_MAX
from shardrt.store.base import Host, Hub, Store
from shardrt.store.factory import make_store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from shardrt.config import HostSettings, Settings

STORE_CONNECTIONS = 2
"""One renews the lease, one claims and releases."""
BACKLOG = 1024
SOCKETS = "shardrt-sockets-"
"""Prefix of the directories for Unix sockets; the supervisor's process id follows."""
WILDCARDS = {"0.0.0.0", "::", "*"}  # noqa: S104 - recognised here, not bound


class PortInUse(ShardrtError):
    """Somebody else listens on the port."""

    code = "PortInUse"


async def open_hub(settings: Settings) -> tuple[Store, Hub]:
    """Connect to the store, and create or upgrade the hub in it.

    Raises:
        ConfigInvalid: the store cannot be used by several processes.
        StoreError: not reachable, unsafe, of another partition count, or newer.
    """
    if settings.store.url.startswith("memory:"):
        raise ConfigInvalid(
            "store.url: memory:// lives in one process; serve with sqlite:///… or postgresql://…"
        )
    store = make_store(
        settings.store.url, connections=STORE_CONNECTIONS, unsafe=settings.store.unsafe
    )
    try:
        await store.open()
        return store, await store.create(settings.hub.partitions)
    except StoreError:
        await store.close()
        raise


def bind(address: str, port: int) -> socket.socket:
    """Listen on the public port.

    Raises:
        PortInUse: somebody else does.
        ConfigInvalid: this machine has no such address.
    """
    try:
        family, kind, protocol, _, target = socket.getaddrinfo(
            address, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise ConfigInvalid(f"host.bind: {address}: {error.strerror}") from None
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(target)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise PortInUse(
                f"host.port: {address}:{port} is in use; choose another with --port, or 0 for any"
            ) from None
        raise ConfigInvalid(f"host.bind: {address}:{port}: {error.strerror}") from None
    return listener


def address_of(host: HostSettings, listener: socket.socket) -> str:
    """Return the URL at which clients and other hosts reach a host."""
    scheme = "https" if host.tls_cert else "http"
    return host.advertise.rstrip("/") or url_of(host.bind, listener, scheme)


def url_of(address: str, listener: socket.socket, scheme: str = "http") -> str:
    """Return the URL of the listener, as far as this machine can tell."""
    host = socket.gethostname() if address in WILDCARDS else address
    port = listener.getsockname()[1]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def sweep_sockets(base: Path) -> None:
    """Remove the directories that killed supervisors of this user have left."""
    for path in base.glob(f"{SOCKETS}*"):
        pid = path.name.removeprefix(SOCKETS).partition("-")[0]
        try:
            if pid.isdecimal() and path.stat().st_uid == os.getuid() and not _is_running(int(pid)):
                shutil.rmtree(path, ignore_errors=True)
        except OSError:
            continue  # somebody else was faster


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


@contextmanager
def socket_directory() -> Iterator[Path]:
    """Make a private directory with a short path, for as long as the block runs."""
    base = tempfile.gettempdir()
    if len(os.fsencode(base)) > PATH_BYTES_MAX // 2:
        base = "/tmp"  # noqa: S108 - mkdtemp makes it private
    sweep_sockets(Path(base))
    path = Path(tempfile.mkdtemp(prefix=f"{SOCKETS}{os.getpid()}-", dir=base))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def host_row(settings: Settings, listener: socket.socket) -> Host:
    """Return this host as the others see it, without its incarnation."""
    return Host(
        host_id=settings.host.host_id or default_host_id(listener.getsockname()[1]),
        incarnation="",
        address=address_of(settings.host, listener),
        shards=settings.host.shards,
        version=__version__,
    )


def configurations(
    settings: Settings,
    *,
    host_id: str,
    hub: Hub,
    sockets: Path,
    listen_fd: int,
    import_paths: list[str],
) -> list[control.Configure]:
    """Return the first message of each child: shards, then gateways."""

    def configure(role: str, index: int, **more: Any) -> control.Configure:
        return control.Configure(
            role=role,
            index=index,
            settings=asdict(settings),
            app=settings.host.app,
            host_id=host_id,
            incarnation="",
            partitions=hub.partitions,
            hub_id=hub.id,
            import_paths=import_paths,
            **more,
        )

    shards = [
        configure("shard", index, socket=str(sockets / f"shard-{index}.sock"))
        for index in range(settings.host.shards)
    ]
    gateways = [
        configure("gateway", index, socket="", listen_fd=listen_fd)
        for index in range(settings.host.gateways)
    ]
    return shards + gateways
