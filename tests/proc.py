"""What /proc shows of a process that may end while one looks: nothing of one that has ended."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def command_line(pid: int) -> bytes:
    """Return the arguments of a process, a NUL after each: the same to everybody, as `ps` shows it."""
    return _of(pid, "cmdline")


def environment(pid: int) -> bytes:
    """Return the variables that a process was started with, a NUL after each."""
    return _of(pid, "environ")


def open_files(pid: int) -> list[str]:
    """Return where the open files of a process lead."""
    found = []
    with contextlib.suppress(OSError):
        for handle in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                found.append(os.readlink(f"/proc/{pid}/fd/{handle}"))
    return found


def _of(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except (FileNotFoundError, ProcessLookupError):  # before it is opened, and after
        return b""
