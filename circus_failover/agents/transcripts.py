"""Reads the last records of a file that a client appends JSON to, a record a line, the newest first.

Such files grow to hundreds of megabytes, and their writer may be in the middle of a line: this reads from the
end, no further than it is told and no further than its caller wants to know, and leaves out what is no whole
record. It knows no client's format, and remembers nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from circus_failover.agents import client_file

BLOCK = 16 * 1024
LIMIT = 256 * 1024


def last_records(path: Path, limit: int = LIMIT) -> Iterator[dict[str, Any]]:
    """Yield the last records of a file, the newest first.

    A line that is cut, broken, or no JSON object is left out; a file that is not there or cannot be read has
    none. It is read block by block, as records are asked for.

    Args:
        path: the file.
        limit: how many bytes from its end are looked at; of a longer last record nothing is known.
    """
    for line in _last_lines(path, limit):
        try:
            record = json.loads(line)
        # A number of too many digits is a ValueError, nesting without end a RecursionError (Python 3.11).
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict):
            yield record


def whole(path: Path, limit: int = LIMIT) -> bool:
    """Say whether `last_records` gives all records that there are; False where that cannot be told."""
    try:
        return path.stat().st_size <= limit
    except OSError:
        return False


def time_of(stamp: object) -> float | None:
    """Return the epoch seconds of a record's time, `2026-11-21T15:55:36.260Z`; None when it is none.

    A time without a zone is none: which one is meant cannot be told.
    """
    if not isinstance(stamp, str) or not stamp:
        return None
    try:
        # Python 3.10 does not read the `Z`, nor fractions of other than 3 or 6 digits.
        moment = datetime.fromisoformat(_plain(stamp))
        return moment.timestamp() if moment.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None


def _plain(stamp: str) -> str:
    stamp = stamp[:-1] + "+00:00" if stamp[-1] in "zZ" else stamp
    whole, dot, rest = stamp.partition(".")
    if not dot:
        return stamp
    digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
    return f"{whole}.{digits[:6]:0<6}{rest[len(digits) :]}"


def newest_time(path: Path, limit: int = LIMIT) -> float | None:
    """Return the epoch seconds of the newest `timestamp` in the last records of a file.

    The last lines may be about the client itself and have none; those before them are looked at then.
    """
    for record in last_records(path, limit):
        at = time_of(record.get("timestamp"))
        if at is not None:
            return at
    return None


def _last_lines(path: Path, limit: int) -> Iterator[bytes]:
    """Yield the lines in the last `limit` bytes, the last one first, without one that is cut there."""
    try:
        with client_file.opened(path) as file:
            position = file.seek(0, 2)
            stop = max(0, position - limit)
            # In pieces, the last first: joining them with each block would cost the square of a long line.
            pieces: list[bytes] = []
            while position > stop:
                size = min(BLOCK, position - stop)
                position -= size
                file.seek(position)
                *lines, last = file.read(size).split(b"\n")
                if not lines:
                    pieces.append(last)
                    continue
                yield last + b"".join(reversed(pieces))
                yield from reversed(lines[1:])
                pieces = [lines[0]]
            if stop == 0 and pieces:
                yield b"".join(reversed(pieces))
    except OSError:
        return
