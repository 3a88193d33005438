"""Real hosts: `shardrt serve` as a process, its children, and the command line beside it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from shardrt.bench import processes
from shardrt.bench.metering import child_role
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).parents[1]
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 40.0
CLI_TIMEOUT_S = 40.0
DEATH_TIMEOUT_S = 10.0
READY_LINE = re.compile(r"https?://\S+")


class Served:
    """A host that can be started again and again: same store, same port once it is known.

    Its output goes to `serve.out` and `serve.err` in `directory`, which is also where it
    runs. It listens on `port`, if that is given, of `address`; `before` is a command that runs it.
    """

    def __init__(
        self,
        store_url: str,
        directory: Path,
        *options: str,
        app: str = "shardrt.samples:app",
        variables: dict[str, str] | None = None,
        port: int = 0,
        address: str = "127.0.0.1",
        before: Sequence[str] = (),
    ) -> None:
        self._options = ("--app", app, *options)
        self._directory = directory
        self._environment = {"SHARDRT_STORE": store_url} | (variables or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._port = port
        self.url = f"http://{address}:{port}" if port else ""
        self._before = before
        self.starts = 0

    @property
    def pid(self) -> int:
        assert self._process is not None, "started"
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        return None if self._process is None else self._process.poll()

    @property
    def stderr(self) -> str:
        return (self._directory / "serve.err").read_text(errors="replace")

    def start(self) -> Self:
        """Start it and return once it has said where it listens."""
        self.launch()
        wait_until(self._ready, within_s=START_TIMEOUT_S)
        return self

    def launch(self) -> None:
        self.starts += 1
        out, err = self._directory / "serve.out", self._directory / "serve.err"
        out.write_bytes(b"")
        with out.open("ab") as out_file, err.open("ab") as err_file:
            self._process = subprocess.Popen(
                [*self._before, *COMMAND, "serve", *self._options, "--port", str(self._port)],
                cwd=self._directory,
                env=environment(self._environment),
                stdin=subprocess.DEVNULL,
                stdout=out_file,
                stderr=err_file,
            )

    def _ready(self) -> bool:
        said = READY_LINE.search((self._directory / "serve.out").read_text())
        assert said or self.running, f"serve ended:\n{self.stderr[-4000:]}"
        if said is None:
            return False
        # What it says is what it advertises, which may be another port than it listens on.
        if not self._port:
            self.url = said[0]
            self._port = int(self.url.rpartition(":")[2].strip("/"))
        return True

    def family(self) -> list[int]:
        """Return the process ids of all its processes, the supervisor's first."""
        return [p.pid for p in processes.descendants(processes.snapshot(), self.pid)]

    def children(self, role: str) -> list[int]:
        """Return the process ids of its shards or gateways."""
        family = processes.descendants(processes.snapshot(), self.pid)
        return sorted(process.pid for process in family if child_role(process) == role)

    def kill(self) -> None:
        """Kill the supervisor with SIGKILL; return once all its processes are gone."""
        family = self.family()
        os.kill(self.pid, signal.SIGKILL)
        assert self._process is not None
        self._process.wait(DEATH_TIMEOUT_S)
        wait_until(lambda: not set(family) & alive(), within_s=DEATH_TIMEOUT_S)

    def kill_all(self) -> None:
        """Kill all of its processes with SIGKILL at once; return once they are gone."""
        family = self.family()
        for pid in family:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert self._process is not None
        self._process.wait(DEATH_TIMEOUT_S)
        wait_until(lambda: not set(family) & alive(), within_s=DEATH_TIMEOUT_S)

    def interrupt(self, with_signal: int = signal.SIGINT) -> int:
        """Press Ctrl-C, or send another signal, and return the exit code."""
        assert self._process is not None
        self._process.send_signal(with_signal)
        return self._process.wait(STOP_TIMEOUT_S)

    def close(self) -> None:
        if self.running:
            self.kill()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def cli(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a client command against this host."""
        return cli(*arguments, SHARDRT_URL=self.url)

    def ask(self, *arguments: str) -> Any:
        """Run a client command with `--json`, which must succeed, and return its answer."""
        done = self.cli(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


COMMAND = [sys.executable, "-m", "shardrt"]


def alive() -> set[int]:
    return {process.pid for process in processes.snapshot().values() if process.command}


def environment(more: dict[str, str]) -> dict[str, str]:
    """Return this environment, with the project importable, without settings of its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SHARDRT_")}
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return kept | {"PYTHONPATH": os.pathsep.join(paths)} | more


def cli(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `shardrt` to its end and return what it said."""
    return subprocess.run(
        [*COMMAND, *arguments],
        check=False,
        env=environment(variables),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=CLI_TIMEOUT_S,
    )
