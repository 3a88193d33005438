"""An instance as a file: all that it takes to run its history through other code.

The form is one JSON object. Payloads are in it as they are stored: what an app has sealed stays
sealed. Times are microseconds since 1970 UTC.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec import Raw

from shardrt.core.codec import decode_history
from shardrt.core.history import NULL, HistoryEvent, Parent, Status
from shardrt.errors import RecordCorrupt

if TYPE_CHECKING:
    from shardrt.core.state import Instance

FORMAT = 1


class Exported(msgspec.Struct, frozen=True, kw_only=True):
    """One execution of an instance, as of one moment."""

    format: int = FORMAT
    instance_id: str
    execution_id: str
    seed: str
    """The execution id that its code sees: that of the first one, if it was rewound."""
    name: str
    version: str | None
    status: Status
    created_at: int
    parent: Parent | None
    tags: dict[str, str] | None
    input: Raw
    history: Raw = NULL
    """All events of the execution, as a JSON array."""

    def events(self) -> list[HistoryEvent]:
        """Return the decoded history. Raises `RecordCorrupt`."""
        return decode_history(bytes(self.history))


class _Form(msgspec.Struct):
    format: int


def exported_of(instance: Instance) -> Exported:
    """Return an instance without its history."""
    return Exported(
        instance_id=instance.instance_id,
        execution_id=instance.execution_id,
        seed=instance.seed or instance.execution_id,
        name=instance.name,
        version=instance.version,
        status=instance.status,
        created_at=instance.created_at,
        parent=instance.parent,
        tags=instance.tags,
        input=instance.input,
    )


def decode_exported(data: bytes) -> Exported:
    """Decode an exported instance. Raises `RecordCorrupt`, also for a newer form."""
    try:
        form = msgspec.json.decode(data, type=_Form).format
        if form != FORMAT:
            raise RecordCorrupt(f"exported in form {form}; this release reads form {FORMAT}")
        return msgspec.json.decode(data, type=Exported)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RecordCorrupt(f"not an exported instance: {error}") from error
