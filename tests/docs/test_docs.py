"""The code in docs/*.md runs, and its assertions hold.

The ```` ```python ```` blocks of a page run in order, in one module and one event loop, with
``await`` allowed at the top. Blocks with more words after ``python`` are only shown: say
``python no-run``. A page must not wait in real time.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import linecache
import re
import sys
import types
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def blocks(page: str) -> Iterator[tuple[int, str]]:
    """Yield each block with the number of lines before it."""
    for match in BLOCK.finditer(page):
        yield page.count("\n", 0, match.start(1)), match[1]


def run_page(path: Path, module: types.ModuleType) -> int:
    """Run all blocks and return how many; a failure shows the line of the page."""
    return asyncio.run(_run(path, path.read_text(encoding="utf-8"), module))


async def _run(path: Path, page: str, module: types.ModuleType) -> int:
    count = 0
    for lines_before, source in blocks(page):
        code = compile(
            "\n" * lines_before + source,
            str(path),
            "exec",
            flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT,
            dont_inherit=True,
        )
        result = eval(code, vars(module))
        if inspect.isawaitable(result):
            await result
        count += 1
    return count


@pytest.fixture
def module(request: pytest.FixtureRequest) -> Iterator[types.ModuleType]:
    """A module that annotations can be looked up in, gone after the test."""
    name = f"docs_{request.node.callspec.id}" if hasattr(request.node, "callspec") else "docs_page"
    module = types.ModuleType(name)
    sys.modules[name] = module
    yield module
    del sys.modules[name]
    linecache.clearcache()


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_the_code_of_a_page_runs(
    path: Path, module: types.ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_page(path, module) == path.read_text(encoding="utf-8").count("```python\n")


def test_a_wrong_page_is_found_out(module: types.ModuleType, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# T\n\n```python\nx = 1\n```\n\n```python no-run\n1 / 0\n```\n\n"
        "```python\nassert x == 2\n```\n"
    )
    with pytest.raises(AssertionError) as caught:
        run_page(page, module)
    assert caught.tb is not None
    assert caught.traceback[-1].lineno + 1 == 12
