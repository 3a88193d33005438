"""Reads orchestrators and says what a replay would stumble over, before anything runs.

Looks at the source of registered orchestrators and of the functions of the same module that
they call: for everything that `guard` would refuse, and for what it cannot see: walks over sets,
awaits of what is not asyncio's, activities called directly, writes to global state. What
cannot be told from the text is left alone: a finding is meant to be right.

A line that ends in ``# shardrt: allow`` is left out, and so is ``with ctx.unguarded():``.
"""

from __future__ import annotations

import ast
import inspect
import linecache
from collections import deque
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from shardrt.orchestration.check_rules import FunctionReader
from shardrt.orchestration.definitions import title_of

if TYPE_CHECKING:
    import types

    from shardrt.orchestration.app import App
    from shardrt.orchestration.definitions import OrchestratorDefinition

ALLOWED = "# shardrt: allow"


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One place in the source."""

    file: str
    line: int
    column: int
    """From 1."""
    function: str
    orchestrator: str
    """Name and version of the orchestrator that comes here."""
    what: str
    instead: str
    """What to use."""


def check_app(app: App) -> list[Finding]:
    """Return what is wrong with all orchestrators of an app, each place once, in order."""
    activities = {id(inspect.unwrap(each.fn)): each.name for each in app.activities}
    found: dict[tuple[str, int, int, str], Finding] = {}
    for definition in app.orchestrators:
        for finding in _check(definition, activities):
            key = (finding.file, finding.line, finding.column, finding.what)
            found.setdefault(key, finding)
    return sorted(found.values())


def _check(definition: OrchestratorDefinition, activities: dict[int, str]) -> list[Finding]:
    findings: list[Finding] = []
    title = title_of(definition)
    functions: deque[Any] = deque([inspect.unwrap(definition.fn)])
    seen: set[types.CodeType] = set()
    while functions:
        function = functions.popleft()
        function = getattr(function, "__func__", function)
        if function.__code__ in seen or id(function) in activities:
            continue
        seen.add(function.__code__)
        file, line = function.__code__.co_filename, function.__code__.co_firstlineno
        name = function.__qualname__
        node = _node_of(function)
        if node is None:
            what = "the source of this function cannot be found"
            findings.append(Finding(file, line, 1, name, title, what, "a module in a file"))
            continue
        reader = FunctionReader(node, function.__globals__, function.__module__, activities)
        reader.read()
        functions.extend(reader.calls)
        findings += [
            Finding(file, where.lineno, where.col_offset + 1, name, title, what, instead)
            for where, what, instead in reader.found
            if ALLOWED not in linecache.getline(file, where.lineno)
        ]
    return findings


def _node_of(function: types.FunctionType) -> ast.FunctionDef | ast.AsyncFunctionDef | None:
    code = function.__code__
    lines = linecache.getlines(code.co_filename, function.__globals__)
    name = code.co_name
    for node in _functions_in("".join(lines)):
        first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
        if node.name == name and code.co_firstlineno in {first, node.lineno}:
            return node
    return None


@lru_cache(maxsize=64)
def _functions_in(source: str) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return []
    return [
        node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    ]
