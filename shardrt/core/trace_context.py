"""Trace contexts as text: which trace something belongs to, and who in it caused it.

A context is what W3C calls ``traceparent``, ``00-<trace id>-<span id>-<flags>``; if there is a
``tracestate``, it follows after a space. Empty: no trace. A span id of zeros is nobody: whatever
comes of it begins the trace. Ids of what the engine does follow from what caused it, so they are
the same after a crash, on any host.
"""

from __future__ import annotations

import hashlib
import re

NOBODY = "0" * 16
UNRECORDED = "-"
"""In a request, in place of a context: there is none, and it was drawn that there is to be none."""
_PARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_STATE = re.compile(r"[ -~]{1,512}")
_LENGTH = 55


def checked(trace: str) -> str:
    """Return a context from outside as it is, without its state if that is none; empty if bad."""
    parent, _, state = trace.partition(" ")
    if not _PARENT.fullmatch(parent):
        return ""
    return trace if _STATE.fullmatch(state) else parent


def root(trace_id: int) -> str:
    """Return the context of what begins a sampled trace."""
    return f"00-{trace_id:032x}-{NOBODY}-01"


def follow(trace: str, *what: str | int) -> str:
    """Return the context of what follows from another: same trace, its own span id."""
    if not trace:
        return ""
    text = "\x00".join((trace[3:52], *map(str, what)))
    span_id = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
    return f"{trace[:36]}{span_id}{trace[52:]}"


def is_sampled(trace: str) -> bool:
    """Whether spans of it are to be recorded."""
    return len(trace) >= _LENGTH and trace[54] in "13579bdf"


def is_nobody(trace: str) -> bool:
    """Whether it names no span."""
    return not trace or trace[36:52] == NOBODY


def trace_id_of(trace: str) -> int:
    return int(trace[3:35], 16)


def span_id_of(trace: str) -> int:
    """Return 0 for nobody."""
    return int(trace[36:52], 16)


def flags_of(trace: str) -> int:
    return int(trace[53:55], 16)


def state_of(trace: str) -> str:
    """Return its ``tracestate``."""
    return trace[_LENGTH + 1 :]
