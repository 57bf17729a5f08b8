"""Reads a client's small files whole, and nothing but files: what stands in a file's place stops nobody."""

from __future__ import annotations

import os
import stat
from pathlib import Path

LARGEST = 4 * 1024 * 1024


def read(path: Path, largest: int = LARGEST) -> bytes:
    """Return what a file holds.

    Raises:
        FileNotFoundError: there is none.
        OSError: it cannot be read, is no regular file, or is larger than `largest` bytes.
    """
    # Without O_NONBLOCK opening a fifo waits for its writer, and circusd with it.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise OSError("it is no regular file")
        if found.st_size > largest:
            raise OSError(f"it has more than {largest} bytes")
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(largest)
    finally:
        os.close(descriptor)
