"""How to start another interpreter that can import this very package."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import shardrt


def interpreter(module: str) -> list[str]:
    """Return the command that runs a module of this package, and nothing from the cwd.

    Without ``-P`` a file in the working directory could stand in for one of the standard
    library's, also in gateways, which never import user code.
    """
    return [sys.executable, "-P", "-m", module]


def environment(role: str = "") -> dict[str, str]:
    """Return this environment, in which this very package can be imported.

    Shards also get one seed for hashes, unless somebody has chosen one: code that walks over a
    set of texts then takes the same course on all hosts. Gateways, which read what strangers
    send, keep a secret one.
    """
    root = str(Path(shardrt.__path__[0]).resolve().parent)
    paths = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    if Path(root).name not in {"site-packages", "dist-packages"} and root not in paths:
        paths.append(root)
    hashing = {"PYTHONHASHSEED": os.environ.get("PYTHONHASHSEED") or "0"} if role == "shard" else {}
    return os.environ | hashing | {"PYTHONPATH": os.pathsep.join(paths)}
