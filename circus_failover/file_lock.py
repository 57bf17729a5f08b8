"""A file that one process at a time holds: whoever has it open and locked, until it is closed or they end.

Light enough for the canary, which imports no more than it has to.
"""

from __future__ import annotations

import fcntl
import os


def take(path: str | os.PathLike[str]) -> int | None:
    """Return the descriptor that holds a lock for as long as it is open; None: somebody has it.

    Raises:
        OSError: the file cannot be opened.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    return handle
