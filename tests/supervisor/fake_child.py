"""A child that hosts nothing: says what a supervisor wants to hear, or does not.

What it does wrong is in the environment: FAKE_SHARD or FAKE_GATEWAY is one of ``fatal``,
``stillborn``, ``blocked`` (after the first assignment), ``deaf`` (to Stop), or empty.
Whatever a shard is told is appended as a line to the file FAKE_LOG.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from pathlib import Path

from shardrt.host.child import FatalStart, Parent, run_child
from shardrt.links import control


class Fake:
    def __init__(self, parent: Parent, configure: control.Configure) -> None:
        self.parent = parent
        self.fault = os.environ.get(f"FAKE_{configure.role.upper()}", "")
        self.name = f"{configure.role}-{configure.index}"
        self.hosted: dict[int, int] = {}

    async def live(self) -> None:
        if self.fault == "fatal":
            raise FatalStart("host.app: no module 'nowhere'")
        if self.fault == "stillborn":
            sys.exit(7)
        async with asyncio.TaskGroup() as tasks:
            beat = tasks.create_task(self.parent.beat(self.facts))
            self.parent.send(control.Ready(os.getpid()))
            while not self.obey(await self.parent.receive()):
                pass
            beat.cancel()

    def facts(self) -> control.Beat:
        return control.Beat(dict.fromkeys(self.hosted, (3, 2, 1)), running=["activity charge"])

    def obey(self, message: control.ToChild) -> bool:
        match message:
            case control.Assign(partition, epoch):
                self.log(f"assign {partition} {epoch}")
                self.hosted[partition] = epoch
                self.parent.send(control.Opened(partition, epoch))
                if self.fault == "blocked" and epoch == 1:
                    threading.Event().wait()
            case control.Revoke(partition, epoch):
                self.log(f"revoke {partition} {epoch}")
                del self.hosted[partition]
                self.parent.send(control.Released(partition, epoch))
            case control.Routes(_, targets, _, era):
                served = sum(target is not None for target in targets)
                self.log(f"routes {served}/{len(targets)} {era}")
            case control.Stop() if self.fault != "deaf":
                self.parent.send(*(control.Released(p, e) for p, e in self.hosted.items()))
                self.log("stop")
                return True
        return False

    def log(self, what: str) -> None:
        with Path(os.environ["FAKE_LOG"]).open("a") as file:
            file.write(f"{self.name} {os.getpid()} {what}\n")


async def serve(parent: Parent, configure: control.Configure) -> None:
    await Fake(parent, configure).live()


if __name__ == "__main__":
    run_child(serve)
