"""The modules of a package, imported in a certain order, for `App.scan`."""

from __future__ import annotations

import pkgutil
from importlib import import_module
from typing import TYPE_CHECKING

from shardrt.errors import ConfigInvalid

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType


def modules_of(name: str) -> Iterator[ModuleType]:
    """Import a module and, if it is a package, all below it: parents first, siblings by name.

    What is called ``__main__`` is left out: importing that would run a program.

    Raises:
        ConfigInvalid: one of them cannot be imported; it is named.
    """
    try:
        module = import_module(name)
    except (Exception, SystemExit) as error:  # user code may raise anything
        what = f"{type(error).__name__}: {error}"
        raise ConfigInvalid(f"importing {name!r} failed: {what}") from error
    yield module
    below = pkgutil.iter_modules(getattr(module, "__path__", ()))
    for found in sorted(each.name for each in below if each.name != "__main__"):
        yield from modules_of(f"{name}.{found}")
