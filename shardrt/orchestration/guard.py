"""Catches calls that break determinism while an orchestrator takes a turn, and names the line.

What must not be called is replaced by thin wrappers: functions of modules, methods of Python
classes, and, in the dictionary of their type, `datetime.now` and its like. A wrapper looks at
the running event loop: unless it is that of an orchestration, it just calls on. So a turn
itself costs nothing, and activities, the host and other threads are left alone. (An audit hook
would hear of files and sockets without wrappers, but makes every turn slower: entering one
raises audit events.)

What is not the fault of the user's code does not count: imports, logging, warnings, debuggers.

A call that is refused ends the turn as if it had never been: the instance is parked with the
line, and can go on with repaired code. Installed once per process, by the first executor that
wants it.
"""

from __future__ import annotations

import functools
import gc
import importlib
import inspect
import logging
import sys
from asyncio.events import _get_running_loop
from typing import TYPE_CHECKING, Any, Final

from shardrt.orchestration import forbidden
from shardrt.orchestration.loop import OrchestrationLoop
from shardrt.orchestration.source import line_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import FrameType

    from shardrt.orchestration.definitions import OrchestratorDefinition

logger = logging.getLogger(__name__)

_HARMLESS: Final = frozenset(
    {
        "importlib", "_frozen_importlib", "_frozen_importlib_external", "zipimport", "pkgutil",
        "logging", "warnings", "traceback", "linecache", "tokenize", "inspect", "zoneinfo",
        "structlog", "loguru", "opentelemetry", "sentry_sdk",
        "pdb", "bdb", "pydevd", "debugpy", "coverage", "_pytest",
    }
)  # fmt: skip
"""Top-level packages that may read clocks and files on behalf of anybody: what they find out
does not come back into the code."""

_WARNED_MAX = 1000

_originals: dict[int, Any] = {}
"""Wrappers by the id of what they wrap."""
_kept: list[Any] = []
"""What was replaced in types: their caches may know it still."""
_warned: set[str] = set()


def install() -> None:
    """Begin to watch. Idempotent."""
    if _originals:
        return
    for name, instead in forbidden.FUNCTIONS.items():
        _wrap_function(name, instead)
    for name, (what, instead) in forbidden.ACTS.items():
        _wrap_act(name, what, instead)
    for name, instead in forbidden.METHODS.items():
        _wrap_method(name, instead)


def adopt(definitions: Iterable[OrchestratorDefinition]) -> None:
    """Watch also what the modules of these orchestrators imported by name before `install`."""
    for definition in definitions:
        scope = getattr(inspect.unwrap(definition.fn), "__globals__", {})
        for name, value in list(scope.items()):
            wrapper = _originals.get(id(value))
            if wrapper is not None:
                scope[name] = wrapper


# -- what is replaced ----------------------------------------------------------------------


def _wrap_function(name: str, instead: str) -> None:
    module_name, _, attribute = name.rpartition(".")
    module = importlib.import_module(module_name)
    original = getattr(module, attribute, None)
    if original is None:  # not on this platform, or not in this Python
        return
    if id(original) in _originals:
        setattr(module, attribute, _originals[id(original)])
        return
    called = f"{name.removeprefix('builtins.').removeprefix('_')}()"

    @functools.wraps(original)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        if type(_get_running_loop()) is OrchestrationLoop:
            _found(called, instead)
        return original(*args, **kwargs)

    # As an attribute of a class, a builtin does not become a method; neither must this.
    replacement = staticmethod(wrapper)
    _originals[id(original)] = replacement
    setattr(module, attribute, replacement)


def _wrap_act(name: str, what: str, instead: str) -> None:
    module_name, class_name, attribute = name.split(".")
    of = getattr(importlib.import_module(module_name), class_name)
    original = getattr(of, attribute)

    @functools.wraps(original)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        if type(_get_running_loop()) is OrchestrationLoop:
            _found(what, instead)
        return original(self, *args, **kwargs)

    setattr(of, attribute, wrapper)


def _wrap_method(name: str, instead: str) -> None:
    module_name, class_name, attribute = name.split(".")
    of = getattr(importlib.import_module(module_name), class_name)
    original = vars(of)[attribute]

    def wrapper(cls: type, /, *args: Any, **kwargs: Any) -> Any:
        if type(_get_running_loop()) is OrchestrationLoop:
            _found(f"{cls.__name__}.{attribute}()", instead)
        return original.__get__(None, cls)(*args, **kwargs)

    functools.update_wrapper(wrapper, getattr(of, attribute))
    _kept.append(original)
    _replace_in_type(of, attribute, classmethod(wrapper))


def _replace_in_type(of: type, attribute: str, replacement: object) -> None:
    """Set an attribute of a type that is written in C, which `setattr` refuses."""
    if sys.implementation.name != "cpython":
        return
    try:
        import ctypes  # noqa: PLC0415 - not everywhere, and not for clients
    except ImportError:
        logger.info("no ctypes: %s.%s is not watched", of.__name__, attribute)
        return
    (namespace,) = gc.get_referents(vars(of))
    namespace[attribute] = replacement
    ctypes.pythonapi.PyType_Modified(ctypes.py_object(of))


# -- what is found -------------------------------------------------------------------------


def _found(what: str, instead: str) -> None:
    """Take note of a call inside a turn: refuse it, warn of it, or let it pass."""
    loop = _get_running_loop()
    assert isinstance(loop, OrchestrationLoop)
    ledger = loop.ledger
    if ledger.guard == "off" or ledger.inert:
        return
    line = _line_at_fault()
    if line is None:
        return
    message = f"not deterministic: the code called {what}{line}; use {instead}"
    if ledger.guard == "refuse":
        ledger.inert = True
        ledger.mismatch = message
        raise GeneratorExit
    if not ledger.replaying and message not in _warned and len(_warned) < _WARNED_MAX:
        _warned.add(message)
        logger.warning("%s", message)


def _line_at_fault() -> str | None:
    """Return the innermost line of user code; None if somebody harmless has called."""
    frame: FrameType | None = sys._getframe(3)  # noqa: SLF001
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        root = name.partition(".")[0]
        if root in _HARMLESS or name in {
            "shardrt.orchestration.loop",
            "shardrt.orchestration.execution",
        }:
            return None
        if root not in sys.stdlib_module_names and not name.startswith("shardrt.orchestration"):
            return line_of(frame)
        frame = frame.f_back
    return None
