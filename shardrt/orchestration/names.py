"""What a name in a function means, found out by reading: a dotted name, and the object if known.

Names are looked up as Python would: what the function imports or assigns itself, then the
globals of its module as they are, then builtins. Nothing is called.
"""

from __future__ import annotations

import ast
import builtins
import sys
import types
from functools import cache
from typing import Any, NamedTuple

from shardrt.orchestration import forbidden

MISSING: Any = object()


class Meaning(NamedTuple):
    """What a name stands for."""

    dotted: str
    """Such as ``datetime.datetime.now``; of an instance, the name of its class and ``()``."""
    value: Any = MISSING

    @property
    def package(self) -> str:
        """The top-level package it comes from."""
        return self.dotted.partition(".")[0]


class Names:
    """The names in one function, those of functions within it included."""

    def __init__(self, function: ast.AST, scope: dict[str, Any]) -> None:
        self._scope = scope
        self._imports: dict[str, str] = {}
        self._local: set[str] = set()
        self.declared_global: set[str] = set()
        for node in ast.walk(function):
            self._take(node)
        self._local -= self.declared_global

    def _take(self, node: ast.AST) -> None:
        match node:
            case ast.Import():
                for alias in node.names:
                    bound = alias.asname or alias.name.partition(".")[0]
                    self._imports[bound] = alias.name if alias.asname else bound
            case ast.ImportFrom():
                for alias in node.names:
                    self._imports[alias.asname or alias.name] = f"{node.module}.{alias.name}"
            case ast.Global():
                self.declared_global.update(node.names)
            case ast.Name(ctx=ast.Store() | ast.Del()):
                self._local.add(node.id)
            case ast.arg():
                self._local.add(node.arg)
            case ast.ExceptHandler(name=str(name)):
                self._local.add(name)
            case _:
                pass

    def is_local(self, name: str) -> bool:
        """Whether the function has bound the name, other than by an import."""
        return name in self._local

    def meaning(self, node: ast.expr) -> Meaning | None:
        """Return what a name or a chain of attributes stands for; None if that is not known."""
        match node:
            case ast.Name(id=name):
                return self._name(name)
            case ast.Attribute(value=value, attr=attribute):
                owner = self.meaning(value)
                return None if owner is None else _attribute(owner, attribute)
            case _:
                return None

    def _name(self, name: str) -> Meaning | None:
        if name in self._imports:
            return _imported(self._imports[name])
        if name in self._local:
            return None
        if name in self._scope:
            value = self._scope[name]
            return Meaning(dotted_of(value, f"{self._scope.get('__name__')}.{name}"), value)
        if hasattr(builtins, name):
            return Meaning(f"builtins.{name}", getattr(builtins, name))
        return None


def _imported(dotted: str) -> Meaning:
    module, _, attribute = dotted.rpartition(".")
    if dotted in sys.modules:
        return Meaning(dotted, sys.modules[dotted])
    if module in sys.modules:
        return _attribute(Meaning(module, sys.modules[module]), attribute)
    return Meaning(dotted)


def _attribute(owner: Meaning, attribute: str) -> Meaning:
    dotted = f"{owner.dotted}.{attribute}"
    if owner.value is MISSING or not isinstance(owner.value, (types.ModuleType, type)):
        return Meaning(dotted)
    value = getattr(owner.value, attribute, MISSING)
    if isinstance(value, (types.ModuleType, type)):
        dotted = dotted_of(value, dotted)
    return Meaning(dotted, value)


def dotted_of(value: Any, otherwise: str) -> str:
    """Return the name under which everybody knows a value."""
    known = _known_by_identity().get(id(value))
    if known is not None:
        return known
    if isinstance(value, types.ModuleType):
        return value.__name__
    if isinstance(value, (type, types.FunctionType, types.BuiltinFunctionType, staticmethod)):
        module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
        return f"{module}.{name}" if module and name else otherwise
    kind = type(value)
    return f"{kind.__module__}.{kind.__qualname__}()"


@cache
def _known_by_identity() -> dict[int, str]:
    """Return the forbidden functions that can be told by what they are, whatever their name."""
    known: dict[int, str] = {}
    for dotted in (*forbidden.WRITTEN, *forbidden.WITHOUT_ARGUMENTS):
        module, _, attribute = dotted.rpartition(".")
        value = getattr(sys.modules.get(module), attribute, None)
        while value is not None:  # also what the guard has wrapped
            known.setdefault(id(value), dotted)
            value = getattr(value, "__wrapped__", None)
    return known


def rule_for(dotted: str) -> tuple[str, bool] | None:
    """Return what to use in place of a name, and whether the whole of its module is meant."""
    instead = forbidden.WRITTEN.get(dotted)
    if instead is not None:
        return instead, False
    module = dotted
    while module:
        module = module.rpartition(".")[0]
        instead = forbidden.WRITTEN.get(f"{module}.*")
        if instead is not None:
            return instead, True
    return None
