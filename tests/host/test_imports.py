"""Importing what is to be served, and the one line for each way in which that fails."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from shardrt import App
from shardrt.errors import ConfigInvalid
from shardrt.host.imports import import_app

if TYPE_CHECKING:
    from pathlib import Path

GOOD = "from shardrt import App\napp = App()\nclass inner:\n    app = app\nnumber = 7\n"


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """An importable module with the text that the test is parametrised with."""
    name = f"served_{abs(hash(request.node.nodeid))}"
    (tmp_path / f"{name}.py").write_text(getattr(request, "param", GOOD))
    monkeypatch.syspath_prepend(tmp_path)
    return name


@pytest.mark.parametrize("attribute", ["app", "inner.app"])
def test_an_app_is_found_by_module_and_attribute(module, attribute) -> None:
    assert isinstance(import_app(f"{module}:{attribute}"), App)


@pytest.mark.parametrize("reference", ["orders", "orders:", ":app", ""])
def test_a_reference_has_a_module_and_an_attribute(reference) -> None:
    with pytest.raises(ConfigInvalid, match="not of the form module:attribute"):
        import_app(reference)


@pytest.mark.parametrize("reference", ["nowhere_at_all:app", "shardrt.nowhere:app"])
def test_a_missing_module_is_named(reference) -> None:
    name = reference.partition(":")[0]
    with pytest.raises(ConfigInvalid, match=f"host.app: no module '{name}'"):
        import_app(reference)


def test_a_missing_attribute_is_named_with_a_hint(module) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        import_app(f"{module}:application")
    assert str(caught.value) == (
        f"host.app: module '{module}' has no attribute 'application'; did you mean {module}:app?"
    )


def test_something_else_than_an_app_is_refused(module) -> None:
    with pytest.raises(ConfigInvalid, match=r"is a int, not a shardrt\.App; did you mean"):
        import_app(f"{module}:number")


@pytest.mark.parametrize(
    ("module", "what"),
    [
        ("import nowhere_at_all", "ModuleNotFoundError: No module named 'nowhere_at_all'"),
        ("app = 1 / 0", "ZeroDivisionError: division by zero"),
        ("app = (", "SyntaxError: '(' was never closed"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        (
            "from shardrt import App; App().activity(retrys=3)",
            "@app.activity has no option 'retrys'; did you mean retry?",
        ),
        ("from shardrt import App; App().orchestrator(print)", "must be an async def"),
    ],
    indirect=["module"],
)
def test_a_module_that_fails_is_told_in_one_line(module, what) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        import_app(f"{module}:app")
    message = str(caught.value)
    assert message.startswith(f"host.app: importing '{module}' failed: ")
    assert what in message
    assert f"{module}.py:1)" in message
    assert "\n" not in message
