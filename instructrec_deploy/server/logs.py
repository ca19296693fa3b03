"""Logs as JSON lines on standard output, without a word of any text.

A record's message is written by us; its extra fields are numbers, names and ids. Of an exception
only the types and places stand in the log, because its message may quote a request.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from datetime import UTC, datetime
from typing import Any

LOGGER = "instructrec_deploy"
_PLAIN = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """One JSON object a record: time, level, logger, event, then the record's extra fields."""

    def format(self, record: logging.LogRecord) -> str:
        row: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        row |= {k: v for k, v in vars(record).items() if k not in _PLAIN}
        if record.exc_info and record.exc_info[1]:
            row["error"] = describe_exception(record.exc_info[1])
        return json.dumps(row, ensure_ascii=False, default=repr)


class TextFormatter(logging.Formatter):
    """The same for people: time, level, event, fields as key=value."""

    def format(self, record: logging.LogRecord) -> str:
        fields = {k: v for k, v in vars(record).items() if k not in _PLAIN}
        if record.exc_info and record.exc_info[1]:
            fields["error"] = " <- ".join(describe_exception(record.exc_info[1]))
        stamp = datetime.fromtimestamp(record.created).strftime("%H:%M:%S")
        words = [stamp, record.levelname.lower(), record.getMessage()]
        return " ".join(words + [f"{k}={v}" for k, v in fields.items()])


def set_up_logs(*, format: str = "json", level: str = "info") -> None:
    """Send our records, and other libraries' warnings, to standard output."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter() if format == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger(LOGGER).setLevel(level.upper())


def describe_exception(error: BaseException) -> list[str]:
    """Types and places from the exception to its first cause; no messages."""
    lines = []
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        frames = traceback.extract_tb(current.__traceback__)
        places = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
        lines.append(f"{type(current).__name__} at {' > '.join(places) or 'an unknown place'}")
        current = current.__cause__ or current.__context__
    return lines
