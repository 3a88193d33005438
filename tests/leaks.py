"""Whether all was closed: what is found open when it is garbage, was not."""

from __future__ import annotations

import gc
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def all_closed() -> Iterator[None]:
    """Fail if a socket or transport that the block has left is open."""
    gc.collect()  # what others have left is theirs
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always", ResourceWarning)
        yield
        gc.collect()
    assert [str(each.message) for each in found] == []
