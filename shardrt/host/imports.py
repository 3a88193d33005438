"""From ``module:attribute`` to an `App`, with one clear line for whatever goes wrong."""

from __future__ import annotations

import importlib
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from shardrt import orchestration
from shardrt.errors import ConfigInvalid
from shardrt.orchestration.app import App

if TYPE_CHECKING:
    from types import ModuleType

_SCRIPTS = ("__main__", "__mp_main__")
_REGISTRATION = str(Path(orchestration.__file__).parent)


def import_app(reference: str) -> App:
    """Import what is to be served: an `App`, or an app of Azure Durable Functions.

    Args:
        reference: ``module:attribute``; the attribute may be dotted.

    Raises:
        ConfigInvalid: it cannot be imported, or is not an `App`.
    """
    found = _adapted(import_object(reference))
    if not isinstance(found, App):
        hint = _hint(sys.modules[reference.partition(":")[0]])
        raise ConfigInvalid(
            f"host.app: {reference!r} is a {type(found).__name__}, not a shardrt.App{hint}"
        )
    return found


def import_object(reference: str) -> object:
    """Import whatever that is.

    Raises:
        ConfigInvalid: it cannot be imported.
    """
    module_name, _, attribute = reference.partition(":")
    if not module_name or not attribute:
        raise ConfigInvalid(f"host.app: {reference!r} is not of the form module:attribute")
    module = _import(module_name, reference)
    found: object = module
    for name in attribute.split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            raise ConfigInvalid(
                f"host.app: module {module_name!r} has no attribute {attribute!r}{_hint(module)}"
            ) from None
    return found


def _adapted(found: object) -> object:
    """Return an app of Azure Durable Functions as one of ours, and anything else as it is."""
    if all(not each.__module__.startswith("azure.functions.") for each in type(found).__mro__):
        return found
    # By name: the layer is above this one, and needs packages that need not be installed.
    try:
        adapter = importlib.import_module("shardrt.compat.azure")
    except ModuleNotFoundError as error:
        raise ConfigInvalid(f"host.app: {error}; install shardrt[azure]") from None
    app: App = adapter.from_azure(found)
    return app


def _import(module_name: str, reference: str) -> ModuleType:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module_name}.".startswith(f"{error.name}."):
            raise ConfigInvalid(
                f"host.app: no module {error.name!r} for {reference!r}; is it in the directory "
                f"that you start in ({Path.cwd()}), or installed?"
            ) from None
        raise ConfigInvalid(_failed(module_name, error)) from None
    except (Exception, SystemExit) as error:  # noqa: BLE001 - user code may raise anything
        raise ConfigInvalid(_failed(module_name, error)) from None


def _failed(module_name: str, error: BaseException) -> str:
    """Return the last line of the traceback, and the place in the user's code."""
    what = traceback.format_exception_only(error)[-1].strip()
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "importlib" not in f.filename]
    while isinstance(error, ConfigInvalid) and frames[-1].filename.startswith(_REGISTRATION):
        frames.pop()  # what is wrong with it was found out in there; it is wrong out here
    if isinstance(error, SyntaxError):
        where = f" ({error.filename}:{error.lineno})"
    else:
        where = f" ({frames[-1].filename}:{frames[-1].lineno})" if len(frames) > 1 else ""
    return f"host.app: importing {module_name!r} failed: {what}{where}"


def _hint(module: ModuleType) -> str:
    apps = sorted(name for name, value in vars(module).items() if isinstance(value, App))
    return f"; did you mean {module.__name__}:{apps[0]}?" if apps else ""


def reference_to(app: App) -> str | None:
    """Return the ``module:attribute`` at which another process finds this app, if there is any.

    That is a variable at the top level of a module that can be imported: not of the script
    that was started, nor of code typed in.
    """
    for name, module in list(sys.modules.items()):
        if name in _SCRIPTS:
            spec = getattr(module, "__spec__", None)
            name = getattr(spec, "name", "")  # noqa: PLW2901 - python -m package.module
            if not name or name.endswith("__main__"):
                continue
        for attribute, value in list(getattr(module, "__dict__", {}).items()):
            if value is app:
                return f"{name}:{attribute}"
    return None
