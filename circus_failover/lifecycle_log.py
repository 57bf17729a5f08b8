"""lifecycle.log: one line a decision, in logfmt, for people with grep.

Never a reason to fail an action: a line that cannot be written is counted, and `doctor` says so.
"""

from __future__ import annotations

import contextlib
import os
from logging import LogRecord, makeLogRecord
from logging.handlers import RotatingFileHandler
from pathlib import Path

from circus_failover.logfmt import line

MAX_BYTES = 5 * 1024 * 1024
FILES = 5


class _Handler(RotatingFileHandler):
    """Rotation from the standard library; opens with 0600, and what is there now; counts and never prints."""

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

    def emit(self, record: LogRecord) -> None:
        """Append to the file that has the name now: somebody may have removed or moved the one before."""
        stream = self.stream
        if stream is not None and not self._is_there(stream.fileno()):
            self.stream = None
            with contextlib.suppress(OSError):
                stream.close()
        super().emit(record)

    def _is_there(self, handle: int) -> bool:
        try:
            return os.path.samestat(os.stat(self.baseFilename), os.fstat(handle))
        except FileNotFoundError:
            return False
        except OSError:
            return True

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
