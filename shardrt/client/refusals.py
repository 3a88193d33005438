"""Refusals as exceptions: what a host says by code is raised as the class of that code."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shardrt import errors

if TYPE_CHECKING:
    from shardrt.core.requests import Refusal


def _classes(root: type[errors.ShardrtError]) -> dict[str, type[errors.ShardrtError]]:
    found = {root.code: root}
    for child in root.__subclasses__():
        found = _classes(child) | found
    return found


_BY_CODE = _classes(errors.ShardrtError)


def exception_of(refusal: Refusal) -> errors.ShardrtError:
    """Return the exception that a refusal stands for."""
    found = _BY_CODE.get(refusal.code, errors.ShardrtError)
    if found is errors.Overloaded:
        return errors.Overloaded(refusal.message, refusal.retry_after_s or 1.0)
    try:
        return found(refusal.message)
    except Exception:  # noqa: BLE001 - a class that is not made from a text
        return errors.ShardrtError(f"{refusal.code}: {refusal.message}")
