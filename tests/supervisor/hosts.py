"""A host as a process of its own, and what one can see of it from outside."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]


class ServedHost:
    """A running host. Its directory holds the store and the logs."""

    def __init__(self, directory: Path, command: list[str], **environment: str) -> None:
        self.directory = directory
        self._told = directory / "told.log"
        self._told.touch()
        self._out: list[str] = []
        self._err: list[str] = []
        self._process = subprocess.Popen(
            command,
            cwd=directory,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT), "FAKE_LOG": str(self._told), **environment},
        )
        self._readers = [
            threading.Thread(target=self._read, args=pair, daemon=True)
            for pair in ((self._process.stdout, self._out), (self._process.stderr, self._err))
        ]
        for reader in self._readers:
            reader.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def errors(self) -> str:
        return "".join(self._err)

    @property
    def announced(self) -> list[str]:
        return [line.rstrip() for line in self._out if "serving" in line]

    @property
    def told(self) -> list[list[str]]:
        """What fake children were told: [name, pid, what, …]."""
        return [line.split() for line in self._told.read_text().splitlines()]

    def children(self, marker: str = "") -> dict[int, str]:
        """Return pid → command line of the children that live."""
        found = {}
        for path in Path("/proc").glob("[0-9]*"):
            try:
                parent = path.joinpath("stat").read_text().rpartition(")")[2].split()
                command = path.joinpath("cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if int(parent[1]) == self.pid and parent[0] != "Z" and marker in command:
                found[int(path.name)] = command
        return found

    def wait_announced(self, within_s: float = 30) -> str:
        wait_until(lambda: self.announced or self._process.poll() is not None, within_s=within_s)
        assert self.announced, f"ended with {self._process.returncode}: {self.errors}"
        return self.announced[0]

    def signal(self, number: int = signal.SIGTERM) -> None:
        self._process.send_signal(number)

    def wait(self, within_s: float = 20) -> int:
        """Return the exit code."""
        code = self._process.wait(within_s)
        for reader in self._readers:
            reader.join(5)
        return code

    def end(self) -> None:
        """Leave nothing behind."""
        self._process.kill()
        self.wait()
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()

    def _read(self, stream: Any, lines: list[str]) -> None:
        lines.extend(stream)  # grows as lines come


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def fake_host(directory: Path, settings: dict[str, Any] | None = None, **env: str) -> ServedHost:
    """Start a host whose children are fakes."""
    overrides = {
        "store.url": "sqlite:///hub.db",
        "hub.partitions": 4,
        "host.shards": 2,
        "host.port": 0,
        "host.drain_s": 5.0,
    }
    script = str(Path(__file__).with_name("serve_fake.py"))
    arguments = json.dumps(overrides | (settings or {}))
    return ServedHost(directory, [sys.executable, script, arguments], **env)
