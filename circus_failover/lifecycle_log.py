"""lifecycle.log: one line a decision, in logfmt, for people with grep.

Never a reason to fail an action: a line that cannot be written is counted, and `doctor` says so.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from datetime import datetime, timezone
from logging import LogRecord, makeLogRecord
from logging.handlers import RotatingFileHandler
from pathlib import Path

MAX_BYTES = 5 * 1024 * 1024
FILES = 5
_PLAIN = re.compile(r"[A-Za-z0-9_./:@%+,~^*!?;|<>()\[\]{}$&#-]+")


def timestamp(now: float) -> str:
    """Return an epoch time as ISO 8601 in UTC with milliseconds."""
    return datetime.fromtimestamp(now, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def value(raw: object) -> str:
    """Return one logfmt value: quoted where needed, control characters escaped, on one line."""
    if raw is None:
        return ""
    if isinstance(raw, bool):
        return "true" if raw else "false"
    text = str(raw)
    if not text or _PLAIN.fullmatch(text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    escaped = escaped.replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")
    escaped = "".join(ch if ch.isprintable() else _escape(ord(ch)) for ch in escaped)
    return f'"{escaped}"'


def _escape(code: int) -> str:
    """Return one character in the shortest of Python's escapes that is not ambiguous."""
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def line(now: float, ev: str, fields: Mapping[str, object]) -> str:
    """Return one record as a line without its end: `ts=... ev=... key=value ...`."""
    parts = [f"ts={timestamp(now)}", f"ev={value(ev)}"]
    parts.extend(f"{key}={value(raw)}" for key, raw in fields.items())
    return " ".join(parts)


class _Handler(RotatingFileHandler):
    """Rotation from the standard library; opens with 0600 and counts instead of printing."""

    failed = 0
    last_error = ""

    def _open(self):  # type: ignore[no-untyped-def]
        return open(
            self.baseFilename,
            "a",
            encoding="utf-8",
            errors="backslashreplace",
            opener=lambda path, flags: os.open(path, flags | os.O_CLOEXEC, 0o600),
        )

    def handleError(self, record: LogRecord) -> None:
        import sys

        self.failed += 1
        self.last_error = str(sys.exc_info()[1])


class LifecycleLog:
    """The append-only log of one state directory; only circusd writes it."""

    def __init__(self, path: Path, max_bytes: int = MAX_BYTES, files: int = FILES) -> None:
        self.path = path
        self._handler = _Handler(
            str(path), maxBytes=max_bytes, backupCount=files - 1, encoding="utf-8", delay=True
        )

    def write(self, now: float, ev: str, **fields: object) -> None:
        """Append one record; a failure is counted in `failed` and never raised."""
        self._handler.handle(makeLogRecord({"msg": line(now, ev, fields), "levelno": 20}))

    @property
    def failed(self) -> int:
        """How many records could not be written since the start."""
        return self._handler.failed

    @property
    def last_error(self) -> str:
        """Why the last lost record was lost."""
        return self._handler.last_error
