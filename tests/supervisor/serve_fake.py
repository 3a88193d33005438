"""A supervisor whose children are fakes: ``python serve_fake.py '{"host.shards": 2}'``."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from shardrt.config import load
from shardrt.config.settings import LogSettings
from shardrt.host.child import loop_factory
from shardrt.host.logs import log_to_stderr
from shardrt.supervisor.supervisor import Supervisor

FAKE = [sys.executable, str(Path(__file__).with_name("fake_child.py"))]


def main() -> int:
    log_to_stderr("supervisor", LogSettings(level="debug"))
    settings = load(overrides=json.loads(sys.argv[1]))
    supervisor = Supervisor(
        settings,
        announce=lambda line: sys.stdout.write(line + "\n") and sys.stdout.flush(),
        commands={"shard": FAKE, "gateway": FAKE},
    )
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return 0 if runner.run(supervisor.run()) else 1


if __name__ == "__main__":
    sys.exit(main())
