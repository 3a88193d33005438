"""Scanning a package for what it declares."""

from __future__ import annotations

import itertools
from textwrap import dedent
from typing import TYPE_CHECKING

import pytest

from shardrt import App
from shardrt.errors import ConfigInvalid

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    MakePackage = Callable[[dict[str, str]], str]

numbers = itertools.count(1)

ACTIVITY = """
    from shardrt import App
    app = App()

    @app.activity
    async def {name}() -> None: ...
"""


@pytest.fixture
def make_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakePackage:
    """Write modules into a new package that can be imported; return its name."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def make(modules: dict[str, str]) -> str:
        package = f"scanned_{next(numbers)}"
        for path, source in ({"__init__.py": ""} | modules).items():
            file = tmp_path / package / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(dedent(source).replace("PACKAGE", package), encoding="utf-8")
        return package

    return make


def scanned(package: str) -> list[str]:
    app = App()
    app.scan(package)
    return [each.name for each in app.activities]


def test_every_app_of_a_package_is_included_in_the_order_of_names(
    make_package: MakePackage,
) -> None:
    package = make_package(
        {
            "zeta.py": ACTIVITY.format(name="last"),
            "alpha.py": ACTIVITY.format(name="first"),
            "deep/__init__.py": ACTIVITY.format(name="second"),
            "deep/er/__init__.py": "",
            "deep/er/still.py": ACTIVITY.format(name="third"),
            "plain.py": "x = 1",
            "__main__.py": "raise SystemExit('the program ran')",
            "no_package/loose.py": "raise AssertionError('this is no part of a package')",
        }
    )
    assert scanned(package) == ["first", "second", "third", "last"]
    assert scanned(f"{package}.zeta") == ["last"]


def test_an_app_that_several_modules_share_is_included_once(make_package: MakePackage) -> None:
    package = make_package(
        {
            "a.py": ACTIVITY.format(name="shared"),
            "b.py": "from PACKAGE.a import app, app as again",
        }
    )
    assert scanned(package) == ["shared"]


def test_modules_may_register_with_the_app_that_scans_them(make_package: MakePackage) -> None:
    package = make_package(
        {
            "__init__.py": "from shardrt import App\napp = App()\napp.scan(__name__)\n",
            "a.py": """
                from PACKAGE import app

                @app.activity
                async def one() -> None: ...
            """,
            "b.py": ACTIVITY.format(name="two"),
        }
    )
    assert scanned(package) == ["one", "two"]


def test_a_module_that_cannot_be_imported_is_named(make_package: MakePackage) -> None:
    package = make_package({"fine.py": "", "sub/__init__.py": "", "sub/broken.py": "1 / 0"})
    with pytest.raises(ConfigInvalid) as caught:
        scanned(package)
    assert str(caught.value) == (
        f"importing '{package}.sub.broken' failed: ZeroDivisionError: division by zero"
    )
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_a_package_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigInvalid, match="importing 'no_such_package' failed: ModuleNotFound"):
        scanned("no_such_package")


def test_a_module_that_takes_a_name_that_is_taken_is_named(make_package: MakePackage) -> None:
    package = make_package({"a.py": ACTIVITY.format(name="x"), "b.py": ACTIVITY.format(name="x")})
    with pytest.raises(ConfigInvalid) as caught:
        scanned(package)
    assert str(caught.value) == f"module '{package}.b': activity 'x' is registered twice"
