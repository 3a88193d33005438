"""The names of hosts and of their incarnations, and whether one of them is certainly dead.

An incarnation names the process: machine, pid, start time, and a random part. So a host that
comes up can tell that a row in the store was left behind by a process of this very machine
that was killed, and need not wait for its lease to end. Nothing relies on it: a wrong verdict
would cost a take-over, and epochs keep that harmless.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import socket
from pathlib import Path

_FOREIGN = ""


def owner_name(host_id: str, incarnation: str) -> str:
    """Return what partitions store as their owner."""
    return f"{host_id}/{incarnation}"


def new_incarnation() -> str:
    """Return a name that this process, and no other, has from now on."""
    pid = os.getpid()
    return f"{_machine()}.{pid}.{_started(pid) or 0}.{secrets.token_hex(4)}"


def default_host_id(port: int) -> str:
    """Return the id of a host that was given none: the same after a restart."""
    return f"{socket.gethostname()}-{port}"


def passing_host_id() -> str:
    """Return the id of a host that has no port to be known by."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"


def is_dead(incarnation: str) -> bool:
    """Return whether that incarnation's process ran on this machine and is gone."""
    parts = incarnation.split(".")
    if len(parts) != 4 or parts[0] != _machine() or parts[0] == _FOREIGN:
        return False
    return parts[1].isdigit() and str(_started(int(parts[1]))) != parts[2]


def _machine() -> str:
    """Name this boot of this machine and its pid namespace; empty where that is unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return _FOREIGN
    return hashlib.blake2b(f"{boot} {namespace}".encode(), digest_size=6).hexdigest()


def _started(pid: int) -> int | None:
    """Return when a process started (kernel ticks), or None if it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The command, in parentheses, may contain anything; state is the first field after it.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in {"Z", "X"} else int(fields[19])
