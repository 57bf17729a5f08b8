"""Opens a client's files for reading, and nothing but files: what stands in a file's place stops nobody."""

from __future__ import annotations

import os
import stat
from io import BufferedReader
from pathlib import Path

LARGEST = 4 * 1024 * 1024


def opened(path: Path) -> BufferedReader:
    """Return a regular file, open for reading.

    Raises:
        FileNotFoundError: there is none.
        OSError: it cannot be opened, or is no regular file.
    """
    # Without O_NONBLOCK opening a fifo waits for its writer, and circusd with it.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    # Python's own open() leaks the descriptor of a folder.
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError("it is no regular file")
    return open(descriptor, "rb")


def read(path: Path, largest: int = LARGEST) -> bytes:
    """Return what a file holds.

    Raises:
        FileNotFoundError: there is none.
        OSError: it cannot be read, is no regular file, or is larger than `largest` bytes.
    """
    with opened(path) as file:
        if os.fstat(file.fileno()).st_size > largest:
            raise OSError(f"it has more than {largest} bytes")
        return file.read(largest)
