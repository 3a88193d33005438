"""Store URLs: which there are, and how to show one without its password."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

STORE_SCHEMES = ("memory", "sqlite", "postgresql", "postgres")


def mask_dsn(url: str) -> str:
    """Return a store URL, or libpq connection string, without its passwords.

    Works on malformed URLs too, and rather hides too much than too little.
    """
    masked = re.sub(r"(?<=://)([^:/?#@]*):.*@", r"\1:***@", url, flags=re.DOTALL)
    return re.sub(r"(password\s*=\s*)('(?:[^'\\]|\\.)*'|[^\s&]+)", r"\1***", masked)


def url_problem(url: str) -> str | None:
    """Return what is wrong with a store URL, without repeating it: it may hold a secret."""
    try:
        parts = urlsplit(url)
        _ = parts.port if "," not in parts.netloc else None  # libpq: several servers
    except ValueError:
        return "not a valid URL; escape special characters of the password (%40 for @)"
    if parts.scheme not in STORE_SCHEMES:
        return "use memory://, sqlite:///file.db or postgresql://user:password@host/database"
    if parts.scheme == "sqlite" and (parts.netloc or len(parts.path) < 2):
        return "write sqlite:///relative/file.db or sqlite:////absolute/file.db"
    return None
