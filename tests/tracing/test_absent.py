"""Without OpenTelemetry everything works, and nothing of it is asked for."""

from __future__ import annotations

import subprocess
import sys

import pytest

from shardrt.host.interpreter import environment

PROGRAM = """
import asyncio, logging, sys
logging.basicConfig()
if "absent" in sys.argv:
    sys.modules["opentelemetry"] = None
from shardrt import Runtime
from shardrt.samples import hello

async def main():
    async with Runtime(hello.app, settings={"tracing.enabled": "absent" in sys.argv}) as rt:
        handle = await rt.client.start("hello")
        print(len(await handle.result()))
    print(sorted(name for name in sys.modules if name.startswith("opentelemetry.")))

asyncio.run(main())
"""


@pytest.mark.proc
@pytest.mark.parametrize("absent", [True, False])
def test_a_program_runs_without_it(*, absent: bool):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *(["absent"] if absent else [])],
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )

    assert done.stdout.split("\n") == ["5", "[]", ""]
    assert ("shardrt[otel] is not installed" in done.stderr) == absent
