"""Files that are looked at again when they change."""

from __future__ import annotations

import os


def stamp_of(path: str) -> tuple[int, ...] | None:
    """Return what changes whenever a file does; None: there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
