"""The rules of the static check, applied to one function. See `check`."""

from __future__ import annotations

import ast
import types
from collections import deque
from typing import Any

from shardrt.orchestration import forbidden
from shardrt.orchestration.names import MISSING, Meaning, Names, rule_for

AT_HOME = frozenset({"asyncio", "builtins", "contextlib", "shardrt"})
"""Packages whose awaitables an orchestration's loop runs."""

SETS = frozenset({"builtins.set", "builtins.frozenset"})
SET_METHODS = frozenset({"union", "difference", "intersection", "symmetric_difference", "copy"})
CALLS = frozenset(
    {"call_activity", "call_entity", "call_sub_orchestrator", "create_timer", "wait_for_event"}
)
"""What a context begins at once: unless somebody awaits it, nobody hears what became of it."""
TASKS = frozenset({"create_task", "ensure_future"})
ORDER_MATTERS = frozenset(
    {"list", "tuple", "enumerate", "iter", "zip", "map", "filter", "reversed", "join", "extend"}
)
ORDER_DOES_NOT = frozenset({"sorted", "min", "max", "sum", "any", "all", "len", "set", "frozenset"})
MUTABLE = (list, dict, set, bytearray, deque)
MUTATORS = frozenset(
    {
        "add", "append", "appendleft", "clear", "discard", "extend", "insert", "pop", "popitem",
        "popleft", "remove", "reverse", "setdefault", "sort", "update",
    }
)  # fmt: skip

Found = tuple[ast.expr | ast.stmt, str, str]


class FunctionReader(ast.NodeVisitor):
    """Walks over one function and gathers what is `found`, and which functions it `calls`."""

    def __init__(
        self,
        node: ast.FunctionDef | ast.AsyncFunctionDef,
        scope: dict[str, Any],
        module: str,
        activities: dict[int, str],
    ) -> None:
        self._node = node
        self._module = module
        self._activities = activities
        self._names = Names(node, scope)
        self._sets = _set_variables(self, node)
        self._harmless: set[ast.expr] = set()
        """Generators whose order is lost anyway."""
        self.found: list[Found] = []
        self.calls: list[types.FunctionType] = []

    def read(self) -> None:
        """Look at the body; decorators and annotations do not run in a turn."""
        for statement in self._node.body:
            self.visit(statement)

    def _add(self, node: ast.expr | ast.stmt, what: str, instead: str) -> None:
        self.found.append((node, what, instead))

    # -- what does not run, or is left alone -------------------------------------------------------

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        for statement in node.body:
            self.visit(statement)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        for statement in node.body:
            self.visit(statement)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self._written(node.target)
        if node.value is not None:
            self.visit(node.value)

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        for statement in node.body:
            self.visit(statement)

    def visit_With(self, node: ast.With) -> None:
        lifts = [each.context_expr for each in node.items]
        if any(ast.unparse(each).endswith(".unguarded()") for each in lifts):
            return
        self.generic_visit(node)

    # -- names and calls ---------------------------------------------------------------------------

    def visit_Name(self, node: ast.Name) -> None:
        self._used(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if not self._used(node):
            self.visit(node.value)

    def _used(self, node: ast.Name | ast.Attribute) -> bool:
        """Report a name that must not even be looked at; return whether it was one."""
        meaning = self._names.meaning(node)
        rule = None if meaning is None else rule_for(meaning.dotted)
        if meaning is None or rule is None or rule[1]:
            return False
        self._add(node, _plain(meaning.dotted), rule[0])
        return True

    def visit_Call(self, node: ast.Call) -> None:
        meaning = self._names.meaning(node.func)
        if meaning is not None:
            self._called(node, meaning)
        name = _last_name(node.func)
        if name in ORDER_DOES_NOT:
            self._harmless.update(node.args)
        elif name in ORDER_MATTERS:
            for argument in node.args:
                self._iterated(argument)
        self._mutated(node)
        self.generic_visit(node)

    def _called(self, node: ast.Call, meaning: Meaning) -> None:
        value = getattr(meaning.value, "__wrapped__", meaning.value)
        activity = self._activities.get(id(value))
        instead = forbidden.WITHOUT_ARGUMENTS.get(meaning.dotted)
        rule = rule_for(meaning.dotted)
        if activity is not None:
            name = ast.unparse(node.func)
            self._add(node, f"activity {name} is called directly", f"ctx.call_activity({name}, …)")
        elif instead is not None and not (node.args or node.keywords):
            self._add(node, f"{meaning.dotted}()", instead)
        elif rule is not None and rule[1] and not _is_exception(meaning.value):
            self._add(node, f"{_plain(meaning.dotted)}()", rule[0])
        elif isinstance(value, types.FunctionType) and value.__module__ == self._module:
            self.calls.append(value)

    def visit_Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Call) and _last_name(node.value.func) in CALLS:
            what = f"{ast.unparse(node.value.func)}(…) is not awaited"
            self._add(node, what, "await it, or keep it in a variable")
        self.generic_visit(node)

    # -- awaits ------------------------------------------------------------------------------------

    def visit_Await(self, node: ast.Await) -> None:
        self._awaited(node.value)
        self.generic_visit(node)

    def visit_AsyncWith(self, node: ast.AsyncWith) -> None:
        for item in node.items:
            self._awaited(item.context_expr)
        self.generic_visit(node)

    def visit_AsyncFor(self, node: ast.AsyncFor) -> None:
        self._awaited(node.iter)
        self.generic_visit(node)

    def _awaited(self, node: ast.expr) -> None:
        if not isinstance(node, ast.Call):
            return
        meaning = self._names.meaning(node.func)
        if meaning is None or rule_for(meaning.dotted) is not None:
            return
        if meaning.package in AT_HOME | {self._module.partition(".")[0]}:
            return
        self._add(node, f"await of {ast.unparse(node.func)}()", forbidden.ACTIVITY)

    # -- sets --------------------------------------------------------------------------------------

    def visit_For(self, node: ast.For) -> None:
        self._iterated(node.iter)
        self.generic_visit(node)

    def visit_ListComp(self, node: ast.ListComp) -> None:
        self._comprehended(node)

    def visit_DictComp(self, node: ast.DictComp) -> None:
        self._comprehended(node)

    def visit_GeneratorExp(self, node: ast.GeneratorExp) -> None:
        self._comprehended(node)

    def visit_Starred(self, node: ast.Starred) -> None:
        self._iterated(node.value)
        self.generic_visit(node)

    def _comprehended(self, node: ast.ListComp | ast.DictComp | ast.GeneratorExp) -> None:
        if node not in self._harmless:
            for generator in node.generators:
                self._iterated(generator.iter)
        self.generic_visit(node)

    def _iterated(self, node: ast.expr) -> None:
        if self.is_set(node):
            self._add(node, "iteration over a set, in no determined order", "sorted(…)")

    def is_set(self, node: ast.expr) -> bool:  # noqa: PLR0911 - one per form
        """Whether a value is known to be a set, and not one of tasks, which are ordered here."""
        match node:
            case ast.Set(elts=elements):
                return not all(_is_task(each) for each in elements)
            case ast.SetComp(elt=element):
                return not _is_task(element)
            case ast.BinOp(left=left, op=ast.BitOr() | ast.BitAnd() | ast.Sub() | ast.BitXor()):
                return self.is_set(left)
            case ast.Call(func=ast.Attribute(value=value, attr=attribute)):
                return attribute in SET_METHODS and self.is_set(value)
            case ast.Call(func=function):
                meaning = self._names.meaning(function)
                return meaning is not None and meaning.dotted in SETS
            case ast.Name(id=name) if self._names.is_local(name):
                return name in self._sets
            case ast.Name():
                known = self._names.meaning(node)
                return known is not None and isinstance(known.value, (set, frozenset))
            case _:
                return False

    # -- global state ------------------------------------------------------------------------------

    def visit_Assign(self, node: ast.Assign) -> None:
        for target in node.targets:
            self._written(target)
        self.visit(node.value)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self._written(node.target)
        self.visit(node.value)

    def visit_Delete(self, node: ast.Delete) -> None:
        for target in node.targets:
            self._written(target)

    def _written(self, target: ast.expr) -> None:
        if isinstance(target, (ast.Tuple, ast.List)):
            for each in target.elts:
                self._written(each)
        elif isinstance(target, ast.Name):
            if target.id in self._names.declared_global:
                self._report_write(target, target.id)
        elif isinstance(target, (ast.Attribute, ast.Subscript)):
            if self._is_shared(target.value):
                self._report_write(target, ast.unparse(target.value))
            self.visit(target.value)

    def _mutated(self, node: ast.Call) -> None:
        if not isinstance(node.func, ast.Attribute) or node.func.attr not in MUTATORS:
            return
        owner = node.func.value
        meaning = self._names.meaning(owner)
        if meaning is not None and isinstance(meaning.value, MUTABLE):
            self._report_write(node, ast.unparse(owner))
        elif node.func.attr == "pop" and not node.args:
            self._iterated(owner)

    def _is_shared(self, node: ast.expr) -> bool:
        while isinstance(node, (ast.Attribute, ast.Subscript)):
            node = node.value
        if not isinstance(node, ast.Name):
            return False
        meaning = self._names.meaning(node)
        return meaning is not None and meaning.value is not MISSING

    def _report_write(self, node: ast.expr, name: str) -> None:
        what = f"write to {name}, which outlives the turn and is not replayed"
        self._add(node, what, "local variables, or ctx.set_custom_status(…)")


def _set_variables(reader: FunctionReader, function: ast.AST) -> set[str]:
    """Return the local variables that are sets wherever they are assigned."""
    reader._sets = set()  # noqa: SLF001 - while they are being found
    verdicts: dict[str, bool] = {}
    for node in ast.walk(function):
        pairs: list[tuple[ast.expr, bool]] = []
        if isinstance(node, ast.Assign):
            pairs = [(target, reader.is_set(node.value)) for target in node.targets]
        elif isinstance(node, ast.AnnAssign):
            pairs = [(node.target, _says_set(node.annotation))]
        elif isinstance(node, ast.arg):
            verdicts[node.arg] = node.annotation is not None and _says_set(node.annotation)
        elif isinstance(node, (ast.For, ast.AsyncFor)):
            pairs = [(node.target, False)]
        for target, is_set in pairs:
            if isinstance(target, ast.Name):
                verdicts[target.id] = verdicts.get(target.id, True) and is_set
    return {name for name, is_set in verdicts.items() if is_set}


def _says_set(annotation: ast.expr) -> bool:
    text = annotation.value if isinstance(annotation, ast.Constant) else ast.unparse(annotation)
    kind, _, of = str(text).rpartition(".")[2].partition("[")
    return kind in {"set", "frozenset", "Set"} and not of.startswith(("asyncio.Task", "Task"))


def _is_task(node: ast.expr) -> bool:
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
        return False
    owner = node.func.value
    return node.func.attr in TASKS or (isinstance(owner, ast.Name) and owner.id == "ctx")


def _last_name(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _is_exception(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, BaseException)


def _plain(dotted: str) -> str:
    return dotted.removeprefix("builtins.")
