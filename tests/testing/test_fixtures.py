"""The fixtures, in a pytest of its own."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from shardrt.host.interpreter import environment

if TYPE_CHECKING:
    from pathlib import Path

CONFTEST = 'pytest_plugins = ["shardrt.testing.fixtures"]\n'
TESTS = """
import asyncio
import pytest
from datetime import timedelta
from shardrt import App
from shardrt.testing import Deadlock

app = App()

@app.activity
async def charge(name):
    raise OSError("not in a test")

@app.orchestrator
async def order(ctx, name):
    await asyncio.sleep(30 * 86400)
    return await ctx.call_activity(charge, name)

@pytest.mark.parametrize("name", ["a", "b"])
async def test_a_month(shardrt_env, name, tmp_path):
    async with shardrt_env(app, stubs={"charge": lambda name: name * 2}) as env:
        began = env.now
        assert await (await env.client.start(order, name)).result() == name * 2
        assert env.now - began >= timedelta(days=30)

class TestMethods:
    async def test_a_method(self, shardrt_env):
        async with shardrt_env(app) as env:
            assert env.now

async def test_that_fails(shardrt_env):
    async with shardrt_env(app) as env:
        assert await env.client.get("nobody") == 1

async def test_that_hangs(shardrt_env):
    await asyncio.Event().wait()

def test_that_is_plain(shardrt_env):
    assert shardrt_env(app).hub
"""


def run(place: Path, conftest: str) -> str:
    (place / "conftest.py").write_text(conftest)
    (place / "test_it.py").write_text(TESTS)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly"],
        cwd=place,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    return done.stdout + done.stderr


def test_async_tests_run_in_virtual_time(tmp_path: Path):
    output = run(tmp_path, CONFTEST)
    assert "2 failed, 4 passed" in output, output
    assert "assert None == 1" in output
    assert "FAILED test_it.py::test_that_hangs - shardrt.testing.virtual.Deadlock" in output


def test_nothing_happens_unasked(tmp_path: Path):
    output = run(tmp_path, "")
    assert "fixture 'shardrt_env' not found" in output
    assert "passed" not in output


def test_the_test_kit_does_not_need_pytest():
    code = "import sys, shardrt.testing; assert 'pytest' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], env=environment(), check=True, timeout=50)
