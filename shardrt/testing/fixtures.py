"""For pytest: tests that are `async def` and run in virtual time.

Asked for by a line in the ``conftest.py`` of the root directory::

    pytest_plugins = ["shardrt.testing.fixtures"]

It is no entry point on purpose: nobody's test run changes because shardrt is installed, and
without pytest nothing of this is imported.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

import pytest

from shardrt.testing.environment import Environment
from shardrt.testing.virtual import run_virtual

if TYPE_CHECKING:
    from collections.abc import Callable

FIXTURE = "shardrt_env"


@pytest.fixture
def shardrt_env() -> Callable[..., Environment]:
    """Make environments; see `Environment`.

    A test that uses this fixture and is `async def` runs in virtual time; another plugin for
    such tests is neither needed nor used for it.
    """
    return Environment


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> object | None:
    """Run tests that use `shardrt_env`."""
    test = pyfuncitem.obj
    if FIXTURE not in pyfuncitem.fixturenames or not inspect.iscoroutinefunction(test):
        return None
    arguments = inspect.signature(test).parameters
    run_virtual(test(**{name: pyfuncitem.funcargs[name] for name in arguments}))
    return True
