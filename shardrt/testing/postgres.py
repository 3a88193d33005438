"""A PostgreSQL server of one's own, for tests, benchmarks and trials.

    with PostgresServer() as server:
        async with Runtime(app, store=server.dsn): ...

It is a real server in a directory of its own, on a loopback port, with a random password.
It ends with the process that started it, however that one dies (`postgres_guard`).

This is not for production: nothing here backs up, tunes or upgrades anything.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Literal, Self
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from shardrt.testing.postgres_binaries import (
    PostgresUnavailable,
    find_binaries,
    reachable,
    unprivileged_account,
)
from shardrt.testing.postgres_guard import as_account

GUARD = Path(__file__).with_name("postgres_guard.py")
USER = "shardrt"

INITDB_TIMEOUT_S = 120.0
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 60.0
STARTS_MAX = 20
"""A killed server's children hold its shared memory for a moment: starting is tried again."""
POLL_S = 0.01
LOG_TAIL_CHARS = 2000

Shutdown = Literal["smart", "fast", "immediate"]


class PostgresServer:
    """One server: `start`, `stop`, `restart`, `dsn`; `close` when done.

    All of it blocks; in a coroutine call it through `asyncio.to_thread`. Port and password
    stay the same for as long as the object lives, so that clients can reconnect after a
    restart.

    Args:
        data_dir: where the cluster, its log and its password are kept. Without it they
            are in a temporary directory that `close()` removes. As root, the directory
            must be reachable by the account that runs the server.
        fsync: False trades durability across a power loss for speed (tests). Leave it on
            for benchmarks and where servers are killed on purpose.
        settings: more server settings, such as `{"max_connections": "300"}`.

    Raises:
        PostgresUnavailable: no server programs were found.
    """

    def __init__(
        self,
        data_dir: str | os.PathLike[str] | None = None,
        *,
        fsync: bool = True,
        settings: dict[str, str] | None = None,
    ) -> None:
        self._account = unprivileged_account()
        self._disposable = data_dir is None
        self._home = Path(data_dir).absolute() if data_dir else temporary_dir(self._account)
        self._cluster = self._home / "cluster"
        self._fsync = fsync
        self._settings = server_settings(fsync=fsync) | (settings or {})
        self._port = free_port()
        self._password = ""
        self._pid = 0
        self._guard: subprocess.Popen[bytes] | None = None

    @property
    def dsn(self) -> str:
        """URL of the default database, password included. Known once started."""
        return f"postgresql://{USER}:{self._password}@127.0.0.1:{self._port}/postgres"

    @property
    def log_file(self) -> Path:
        return self._home / "server.log"

    @property
    def running(self) -> bool:
        return self._guard is not None and self._guard.poll() is None

    @property
    def pid(self) -> int:
        """Process id of the postmaster as of the last start."""
        return self._pid

    def start(self) -> Self:
        """Start the server and return once it takes connections.

        Raises:
            PostgresUnavailable: it did not start; with the end of its log.
        """
        if self.running:
            return self
        bin_dir = self._prepare()
        deadline_s = time.monotonic() + START_TIMEOUT_S
        for _ in range(STARTS_MAX):
            self.stop("immediate")
            self._launch(bin_dir)
            if self._became_ready(deadline_s):
                return self
            time.sleep(POLL_S * 10)
        self.stop("immediate")
        raise PostgresUnavailable(f"PostgreSQL did not start:\n{self._log_tail()}")

    def stop(self, mode: Shutdown = "fast") -> None:
        """Stop the server, if it runs.

        "fast" ends the sessions and writes a checkpoint; "immediate" is a crash: the next
        start recovers from the log.
        """
        guard, self._guard = self._guard, None
        if guard is None:
            return
        assert guard.stdin is not None, "asked for a pipe"
        # The pipe stays open meanwhile: its end would tell the guard that we are gone.
        with contextlib.suppress(BrokenPipeError), guard:
            guard.stdin.write(mode.encode() + b"\n")
            guard.stdin.flush()
            try:
                guard.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                guard.kill()

    def kill(self) -> None:
        """Kill the postmaster with SIGKILL and return once it is gone."""
        if self._guard is not None and self.running:
            os.kill(self._pid, signal.SIGKILL)
            self._guard.wait(STOP_TIMEOUT_S)

    def restart(self, mode: Shutdown = "fast") -> None:
        """Stop in the given way and start again, on the same port with the same data."""
        self.stop(mode)
        self.start()

    def close(self) -> None:
        """Stop the server and remove its directory if that is a temporary one."""
        self.stop("immediate" if self._disposable else "fast")
        if self._disposable:
            shutil.rmtree(self._home, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            return self.start()
        except PostgresUnavailable:
            self.close()
            raise

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _prepare(self) -> Path:
        """Make everything there that a start needs; return where the programs are."""
        self._home.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._hand_over(self._home)
        if not reachable(self._home, self._account):
            raise PostgresUnavailable(f"account {self._account!r} cannot reach {self._home}")
        bin_dir = find_binaries(self._account, copy_to=self._home / "programs")
        password_file = self._home / "password"
        if not password_file.exists():
            password_file.touch(mode=0o600)
            password_file.write_text(secrets.token_urlsafe(16))
            self._hand_over(password_file)
        self._password = password_file.read_text()
        if not (self._cluster / "PG_VERSION").exists():
            self._create_cluster(bin_dir / "initdb", password_file)
        return bin_dir

    def _create_cluster(self, initdb: Path, password_file: Path) -> None:
        command = [
            *(str(initdb), "--pgdata", str(self._cluster)),
            *("--username", USER, "--pwfile", str(password_file), "--auth", "scram-sha-256"),
            *("--encoding", "UTF8", "--no-locale"),
            *(() if self._fsync else ("--no-sync",)),
        ]
        done = subprocess.run(
            command,
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=INITDB_TIMEOUT_S,
            cwd="/",
            env=server_environment(),
            **as_account(self._account),
        )
        if done.returncode != 0:
            said = done.stdout.decode(errors="replace")
            raise PostgresUnavailable(f"initdb failed:\n{said[-LOG_TAIL_CHARS:]}")

    def _hand_over(self, path: Path) -> None:
        """Give a file to the account that runs the server."""
        if self._account:
            shutil.chown(path, self._account)

    def _launch(self, bin_dir: Path) -> None:
        server = [str(bin_dir / "postgres"), "-D", str(self._cluster), "-p", str(self._port)]
        for name, value in self._settings.items():
            server += ["-c", f"{name}={value}"]
        disposable_dir = str(self._home) if self._disposable else ""
        arguments = [self._account, str(self.log_file), disposable_dir, *server]
        self._guard = subprocess.Popen(
            [sys.executable, "-I", "-S", str(GUARD), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd="/",
            env=server_environment(),
        )
        assert self._guard.stdout is not None, "asked for a pipe"
        self._pid = int(self._guard.stdout.readline() or 0)

    def _became_ready(self, deadline_s: float) -> bool:
        """Wait until the server takes connections; False if it ended or took too long."""
        while self.running and time.monotonic() < deadline_s:
            if self._reported_ready():
                return True
            time.sleep(POLL_S)
        return False

    def _reported_ready(self) -> bool:
        """Read the postmaster's own status, as `pg_ctl` does."""
        try:
            lines = (self._cluster / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        # The file of a killed predecessor may still be there: compare the process id.
        ours = len(lines) >= 8 and lines[0] == str(self._pid)
        return ours and lines[7].strip() in {"ready", "standby"}

    def _log_tail(self) -> str:
        if not self.log_file.exists():
            return "(no log)"
        return self.log_file.read_text(errors="replace")[-LOG_TAIL_CHARS:]


def server_settings(*, fsync: bool) -> dict[str, str]:
    """Return the settings of a small server on loopback."""
    durable = "on" if fsync else "off"
    return {
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",
        "max_connections": "200",
        "fsync": durable,
        "full_page_writes": durable,
        "synchronous_commit": "on",  # also without fsync: outlive a killed server
        "timezone": "UTC",
    }


def server_environment() -> dict[str, str]:
    """Return our environment without what would reconfigure PostgreSQL."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return kept | {"LC_ALL": "C"}


def temporary_dir(account: str) -> Path:
    """Create a directory that `account` can reach.

    Raises:
        PostgresUnavailable: every place for temporary files is closed to it.
    """
    for parent in (tempfile.gettempdir(), "/tmp", "/var/tmp"):  # noqa: S108
        if Path(parent).is_dir() and reachable(Path(parent).resolve(), account):
            return Path(tempfile.mkdtemp(prefix="shardrt-postgres-", dir=parent))
    raise PostgresUnavailable(f"account {account!r} can reach no directory for temporary files")


def free_port() -> int:
    """Return a loopback port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def with_parameters(dsn: str, **parameters: str) -> str:
    """Return a DSN with query parameters added or replaced, as in `schema="hub_1"`."""
    parts = urlsplit(dsn)
    query = dict(parse_qsl(parts.query)) | parameters
    return urlunsplit(parts._replace(query=urlencode(query)))
