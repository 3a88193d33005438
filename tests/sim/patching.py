"""Changing the product for a while: a bug is a function that does so through a `Patch`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


class Patch:
    """Changes attributes, and puts them back."""

    def __init__(self) -> None:
        self._old: list[tuple[Any, str, Any]] = []

    def __call__(self, owner: Any, name: str, make: Callable[[Any], Any]) -> None:
        """Replace an attribute by what `make` makes of the old one."""
        old = getattr(owner, name)
        self._old.append((owner, name, owner.__dict__.get(name, old)))
        setattr(owner, name, make(old))

    def undo(self) -> None:
        while self._old:
            owner, name, old = self._old.pop()
            setattr(owner, name, old)


Plant = Callable[[Patch], None]


@dataclass(frozen=True)
class Bug:
    """One of them."""

    name: str
    breaks: str
    """The invariant."""
    plant: Plant


BUGS: dict[str, Bug] = {}


def bug(name: str, breaks: str) -> Callable[[Plant], Plant]:
    def register(plant: Plant) -> Plant:
        BUGS[name] = Bug(name, breaks, plant)
        return plant

    return register


@contextmanager
def planted(name: str) -> Iterator[None]:
    """Run a block with a bug."""
    patch = Patch()
    try:
        BUGS[name].plant(patch)
        yield
    finally:
        patch.undo()
