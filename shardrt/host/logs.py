"""Log lines on stderr: for people, or one JSON object a line for machines.

Messages begin with what they are about: ``partition=3 epoch=7 lost, fenced``. In JSON that
becomes fields, as do the facts that loggers of orchestrations and activities add.
"""

from __future__ import annotations

import logging
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from shardrt.core.trace_context import is_sampled
from shardrt.tracing.joining import current_trace

if TYPE_CHECKING:
    from shardrt.config.settings import LogSettings

_ABOUT = re.compile(r"(\w+)=(\S+) ")
_AFTERTHOUGHT = re.compile(r" \[\w+=[^\]]*\]$")
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def log_to_stderr(process: str, settings: LogSettings, *, host_id: str = "") -> None:
    """Write log lines with time, level and the name of the process.

    Args:
        process: such as ``shard-0``.
        settings: from which level on, and in which form.
        host_id: of which host; for machines.
    """
    handler = logging.StreamHandler()
    if settings.format == "json":
        handler.setFormatter(JsonFormatter(process, host_id))
    else:
        text = f"%(asctime)s %(levelname)s {process} %(name)s: %(message)s"
        handler.setFormatter(logging.Formatter(text))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.level.upper())


class JsonFormatter(logging.Formatter):
    """One JSON object a line; its time is ISO 8601 in UTC."""

    def __init__(self, process: str, host_id: str) -> None:
        super().__init__()
        self._process = process
        self._host_id = host_id

    def format(self, record: logging.LogRecord) -> str:
        facts, message = _split(record.getMessage())
        extra = {k: v for k, v in vars(record).items() if k not in _STANDARD}
        if extra:
            message = _AFTERTHOUGHT.sub("", message)
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "process": self._process,
            "host": self._host_id,
            "logger": record.name,
            "message": message,
        }
        if is_sampled(trace := current_trace()):
            line["trace_id"], line["span_id"] = trace[3:35], trace[36:52]
        # What a line is must not be hidden by what it is about.
        line |= {key: value for key, value in {**facts, **extra}.items() if key not in line}
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line, enc_hook=repr).decode()


def _split(message: str) -> tuple[dict[str, Any], str]:
    """Return what a message says at its beginning that it is about, and the rest of it."""
    facts: dict[str, Any] = {}
    end = 0
    while (found := _ABOUT.match(message, end)) is not None:
        key, value = found.groups()
        facts[key] = int(value) if value.isdecimal() else value
        end = found.end()
    return facts, message[end:]
