"""House rules that no linter knows. CONTRIBUTING.md explains them."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from functools import cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[1]
PACKAGE = sorted((ROOT / "shardrt").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
BENCHMARKS = sorted((ROOT / "benchmarks").rglob("*.py"))
PYTHON = [*PACKAGE, *TESTS, *BENCHMARKS]
TEXTS = sorted(
    path
    for path in chain(
        ROOT.glob("*.md"),
        ROOT.glob("*.toml"),
        ROOT.glob("tox.ini"),
        ROOT.glob(".ci/*"),
        ROOT.glob(".github/**/*"),
        ROOT.glob("configs/*"),
        ROOT.glob("docs/**/*"),
        ROOT.glob("shardrt/**/*.sql"),
        PYTHON,
    )
    if path.is_file() and path != Path(__file__)
)

MODULE_LINES_MAX = 500
FUNCTION_LINES_MAX = 60

UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
WORKPLACE = re.compile(r"(?<![\w.])/(work|home|root|Users)/\w")
VAGUE = {"helper", "helpers", "manager", "misc", "util", "utils"}
FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def functions(path: Path) -> Iterator[FunctionNode]:
    return (node for node in ast.walk(tree(path)) if isinstance(node, FunctionNode))


def lines_of_code(function: FunctionNode) -> int:
    """Count a function's lines from its `def` on, without its docstring."""
    lines = (function.end_lineno or function.lineno) - function.lineno + 1
    first = function.body[0]
    if ast.get_docstring(function) is not None:
        lines -= (first.end_lineno or first.lineno) - first.lineno + 1
    return lines


def comments(path: Path) -> Iterator[str]:
    tokens = tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline)
    return (token.string for token in tokens if token.type == tokenize.COMMENT)


def sleeps(path: Path) -> Iterator[int]:
    """Return the lines of sleeps in real time; `sleep(0)` only yields to the loop."""
    for node in ast.walk(tree(path)):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        if not (isinstance(node.func.value, ast.Name) and node.func.attr == "sleep"):
            continue
        if node.func.value.id not in {"asyncio", "time"} or in_orchestrator(node, path):
            continue
        yields_only = bool(node.args) and ast.unparse(node.args[0]) == "0"
        if not yields_only:
            yield node.lineno


def in_orchestrator(call: ast.Call, path: Path) -> bool:
    """Tell whether a call is in an orchestrator, where a sleep is a durable timer.

    Known by its decorator, or by its first argument: the context.
    """
    return any(
        function.lineno <= call.lineno <= (function.end_lineno or 0) and is_orchestrator(function)
        for function in functions(path)
    )


def is_orchestrator(function: FunctionNode) -> bool:
    first = function.args.args[:1]
    takes_context = bool(first) and (
        first[0].arg == "ctx" or "OrchestrationContext" in ast.unparse(first[0])
    )
    return takes_context or any("orchestrator" in ast.unparse(d) for d in function.decorator_list)


def violations(paths: list[Path], offends: Callable[[Path], object]) -> list[str]:
    """Return the files that offend a rule, with what offends in them."""
    found = ((path, offends(path)) for path in paths)
    return [f"{name(path)}: {offence}" for path, offence in found if offence]


def test_a_module_says_what_it_is_for():
    assert not violations(PACKAGE, lambda path: ast.get_docstring(tree(path)) is None)


def test_a_module_is_not_too_long():
    def too_long(path: Path) -> str:
        lines = len(path.read_text(encoding="utf-8").splitlines())
        return f"{lines} lines" if lines > MODULE_LINES_MAX else ""

    assert not violations(PYTHON, too_long), "split along a noun"


def test_a_function_is_not_too_long():
    def too_long(path: Path) -> list[str]:
        return [each.name for each in functions(path) if lines_of_code(each) > FUNCTION_LINES_MAX]

    assert not violations(PYTHON, too_long)


def test_a_module_name_says_something():
    assert not violations(PACKAGE, lambda path: VAGUE & set(path.stem.split("_")))


def test_imports_are_absolute():
    def relative(path: Path) -> list[int]:
        imports = (node for node in ast.walk(tree(path)) if isinstance(node, ast.ImportFrom))
        return [node.lineno for node in imports if node.level > 0]

    assert not violations(PYTHON, relative)


def test_nothing_is_left_unfinished():
    def unfinished(path: Path) -> list[str]:
        return [comment for comment in comments(path) if UNFINISHED.search(comment)]

    assert not violations(PYTHON, unfinished)


def test_tests_wait_for_conditions_and_do_not_sleep():
    exempt = re.compile("chaos|waiting.py")
    tests = [path for path in TESTS if not exempt.search(name(path))]
    assert not violations(tests, lambda path: list(sleeps(path))), "use tests.waiting"


def test_no_path_of_one_machine_is_written_down():
    def path_of_machine(path: Path) -> str | None:
        found = WORKPLACE.search(path.read_text(encoding="utf-8"))
        return found and found.group()

    assert not violations(TEXTS, path_of_machine)


def test_the_marker_of_typed_packages_is_there():
    assert (ROOT / "shardrt" / "py.typed").exists()


def test_ci_runs_exactly_what_the_readme_says():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    (command,) = [line.strip() for line in readme.splitlines() if "-m pytest" in line]
    assert command in script.splitlines()
