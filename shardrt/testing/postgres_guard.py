"""Runs one PostgreSQL server and takes it down with whoever asked for it.

A process of its own, started by path with the bare interpreter (`python -I -S`), so it
must import nothing but the standard library. It prints the server's process id. Standard
input is its leash: a line "smart", "fast" or "immediate" asks for that kind of shutdown;
end of file — the parent is gone, however it died — means immediate. Where the kernel can
do it, the server is also told to stop should the guard itself be killed.

The parent-death signal is bound to the *thread* that forks, which is why this is not done
in the parent: its threads come and go, this process has only one.
"""

import ctypes
import os
import pwd
import selectors
import shutil
import signal
import subprocess
import sys
from typing import Any

SHUTDOWNS = {
    b"smart": signal.SIGTERM,
    b"fast": signal.SIGINT,
    b"immediate": signal.SIGQUIT,
}
PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Ask the kernel for an immediate shutdown when this process's parent is gone."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGQUIT)


def as_account(name: str) -> dict[str, Any]:
    """Return what makes `subprocess` run a child as `name`; an empty name: as ourselves."""
    if not name:
        return {}
    return {"user": name, "group": pwd.getpwnam(name).pw_gid, "extra_groups": []}


def child_ended() -> int:
    """Return a file descriptor that becomes readable when a child process has ended."""
    readable, writable = os.pipe()
    os.set_blocking(writable, False)
    signal.set_wakeup_fd(writable)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    return readable


def watch(server: subprocess.Popen[bytes], ended: int) -> bool:
    """Pass on requests until the server has ended; tell whether the parent is gone."""
    with selectors.DefaultSelector() as selector:
        selector.register(ended, selectors.EVENT_READ)
        selector.register(0, selectors.EVENT_READ)
        while server.poll() is None:
            ready = {key.fd for key, _ in selector.select()}
            if 0 not in ready:
                os.read(ended, 4096)
                continue
            request = os.read(0, 4096).split()
            server.send_signal(SHUTDOWNS[request[-1]] if request else signal.SIGQUIT)
            if not request:
                server.wait()
                return True
    return False


def main(account: str, log_file: str, disposable_dir: str, command: list[str]) -> int:
    # Ctrl-C and the like reach the whole process group: the parent decides, not we.
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    ended = child_ended()
    with open(log_file, "ab") as log:
        server = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=die_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509
            **as_account(account),
        )
    print(server.pid, flush=True)  # noqa: T201
    orphaned = watch(server, ended)
    if orphaned and disposable_dir:
        shutil.rmtree(disposable_dir, ignore_errors=True)
    return abs(int(server.returncode))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:]))
