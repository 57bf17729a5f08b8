"""Files for their owner only (0600), written whole."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO


def write(path: Path, text: str) -> None:
    """Write a file in place. For one that nobody reads before this returns.

    Raises:
        OSError: it cannot be written; it names the file.
    """
    with _opened(path) as file:
        file.write(text)


def replace(path: Path, text: str) -> None:
    """Write a file durably and put it in place at once: a reader sees the old one or the new one.

    Raises:
        OSError: it cannot be written; it names the file.
    """
    temporary = path.with_name(path.name + ".tmp")
    with _opened(temporary) as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def keep(path: Path, text: str) -> None:
    """Have a file say this: one that does is left alone, so that a full disk takes nothing away.

    Raises:
        OSError: it cannot be written; it names the file.
    """
    with contextlib.suppress(OSError, ValueError):
        if path.read_text(encoding="utf-8") == text:
            return
    replace(path, text)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[TextIO]:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", errors="surrogateescape") as file:
            yield file
    except OSError as error:
        # A write that fails names no file (CPython 3.11), and who reads of it has to know which disk is full.
        error.filename = error.filename or str(path)
        raise
