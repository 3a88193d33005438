"""Old histories against new code: would what is under way still fit after a deployment?

Runs the registered orchestrators as after an eviction: nothing is executed, what the code asks
for is compared with what its history says it asked for.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from shardrt.core.exported import decode_exported
from shardrt.core.history import ExecutionStarted
from shardrt.core.work import WorkItem
from shardrt.errors import (
    ConfigInvalid,
    InputInvalid,
    NonDeterminism,
    OrchestratorNotRegistered,
    RecordCorrupt,
    ShardrtError,
)
from shardrt.orchestration.executor import Executor
from shardrt.orchestration.sealing import PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from shardrt.core.exported import Exported
    from shardrt.orchestration.app import App
    from shardrt.orchestration.ledger import Guard

Source: TypeAlias = bytes | str | os.PathLike[str]
"""What `Client.export` returned, or the path of a file or directory of that."""


class Verdict(StrEnum):
    """What became of a replay."""

    OK = "ok"
    DIVERGED = "diverged"
    NOT_REGISTERED = "not registered"
    NOT_READABLE = "not readable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """One file, replayed."""

    path: str
    verdict: Verdict
    instance_id: str = ""
    name: str = ""
    version: str | None = None
    status: str = ""
    events: int = 0
    reason: str = ""
    """Why it is not ok: with both sides, and the line of the code, if they differ."""


def replay(app: App, source: Source, *, guard: Guard = "refuse") -> None:
    """Run exported histories through the code of an app; activities are not executed.

    Args:
        app: with the orchestrators to check.
        source: what `Client.export` returned, or a path of a file with that, or of a directory,
            whose ``.json`` files are all replayed.
        guard: as the setting `shard.guard`.

    Raises:
        NonDeterminism: the code would take another course. Says what history has, what the
            code asked for instead, and where.
        OrchestratorNotRegistered: the app has no such orchestrator, or not that version.
        ConfigInvalid: the orchestrator cannot be called.
        RecordCorrupt: this is no exported instance, or its payloads cannot be opened.
        OSError: a file cannot be read, or a directory has none.
    """
    executor = Executor(app, guard)
    if isinstance(source, bytes):
        _retrace(executor, app, decode_exported(source))
        return
    for path in files_of([source]):
        try:
            _retrace(executor, app, decode_exported(path.read_bytes()))
        except (NonDeterminism, OrchestratorNotRegistered, RecordCorrupt) as error:
            raise type(error)(f"{path}: {error}") from None


def replay_files(
    app: App, paths: Iterable[str | os.PathLike[str]], *, guard: Guard = "refuse"
) -> Iterator[Replayed]:
    """Replay exported instances one after the other; what goes wrong with one is its verdict."""
    executor = Executor(app, guard)
    for path in paths:
        yield _replayed(executor, app, Path(path))


def files_of(paths: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """Return these files, and the ``.json`` files in these directories, at any depth.

    Raises:
        OSError: a directory has none.
    """
    found: list[Path] = []
    for each in map(Path, paths):
        files = sorted(each.rglob("*.json")) if each.is_dir() else [each]
        if not files:
            raise FileNotFoundError(f"no .json file in {each}")
        found += files
    return found


def _replayed(executor: Executor, app: App, path: Path) -> Replayed:
    try:
        exported = decode_exported(path.read_bytes())
    except (OSError, RecordCorrupt) as error:
        return Replayed(path=str(path), verdict=Verdict.NOT_READABLE, reason=str(error))
    events, verdict, reason = 0, Verdict.OK, ""
    try:
        events = _retrace(executor, app, exported)
    except ShardrtError as error:
        verdict, reason = _VERDICTS.get(type(error), Verdict.NOT_READABLE), str(error)
    return Replayed(
        path=str(path),
        verdict=verdict,
        instance_id=exported.instance_id,
        name=exported.name,
        version=exported.version,
        status=exported.status,
        events=events,
        reason=reason,
    )


_VERDICTS: dict[type[ShardrtError], Verdict] = {
    NonDeterminism: Verdict.DIVERGED,
    ConfigInvalid: Verdict.NOT_REGISTERED,
    OrchestratorNotRegistered: Verdict.NOT_REGISTERED,
}


def _retrace(executor: Executor, app: App, exported: Exported) -> int:
    """Replay, and return how many events that were."""
    events = exported.events()
    started = events[0] if events else None
    if not isinstance(started, ExecutionStarted):
        raise RecordCorrupt("history does not begin with the start of an execution")
    if app.sealer is None and PREFIX in bytes(exported.history):
        raise RecordCorrupt("payloads are sealed, and the app has no payload codec")
    item = WorkItem(
        exported.instance_id,
        exported.execution_id,
        0,
        started.at,
        started,
        (),
        exported.seed,
    )
    try:
        executor.retrace(item, events)
    except InputInvalid as error:
        raise RecordCorrupt(str(error)) from error
    return len(events)
