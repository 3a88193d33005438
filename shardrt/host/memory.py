"""The garbage collector of a process that holds hundreds of thousands of live objects."""

from __future__ import annotations

import gc


def settle_memory() -> None:
    """Exempt what is loaded by now from garbage collection, and collect less often.

    Instances are trees and die by reference count; the collector would only walk over
    hundreds of thousands of live ones.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
