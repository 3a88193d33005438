"""A network of one's own for each host, plugged into this machine by a cable that can be pulled.

Linux network namespaces, which take root. While a cable is pulled packets are lost in both
directions and nobody is told: each end believes that the other one has another hardware address.
Unlike a proxy that holds what comes, nothing is acknowledged meanwhile, so that the timers of TCP
run.
"""

from __future__ import annotations

import os
import subprocess

NOWHERE = "02:00:00:00:00:01"
DEVICE = "eth0"


class Cable:
    """One namespace. `lay` it before use, `remove` it at the end."""

    def __init__(self, number: int) -> None:
        self.namespace = f"chaos{os.getpid()}n{number}"
        self._device = f"ch{os.getpid() % 100_000}n{number}"
        self.here = f"10.213.{number}.1"
        """The address of this machine, as seen through the cable."""
        self.there = f"10.213.{number}.2"

    @property
    def command(self) -> list[str]:
        """What to put before a command that runs at the other end."""
        return ["ip", "netns", "exec", self.namespace]

    def lay(self) -> None:
        ip("netns", "add", self.namespace)
        peer = ("peer", "name", DEVICE, "netns", self.namespace)
        ip("link", "add", self._device, "type", "veth", *peer)
        ip("addr", "add", f"{self.here}/30", "dev", self._device)
        ip("link", "set", self._device, "up")
        self._there("addr", "add", f"{self.there}/30", "dev", DEVICE)
        for device in ("lo", DEVICE):
            self._there("link", "set", device, "up")
        self._there("route", "add", "default", "via", self.here)

    def remove(self) -> None:
        ip("netns", "del", self.namespace)

    def pull(self) -> None:
        lost = ("lladdr", NOWHERE, "nud", "permanent")
        ip("neigh", "replace", self.there, *lost, "dev", self._device)
        self._there("neigh", "replace", self.here, *lost, "dev", DEVICE)

    def plug(self) -> None:
        ip("neigh", "del", self.there, "dev", self._device)
        self._there("neigh", "del", self.here, "dev", DEVICE)

    def _there(self, *arguments: str) -> None:
        ip("-n", self.namespace, *arguments)


def ip(*arguments: str) -> None:
    """Run `ip`.

    Raises:
        OSError: it did not work, or is not there; with the reason.
    """
    done = subprocess.run(["ip", *arguments], check=False, capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
