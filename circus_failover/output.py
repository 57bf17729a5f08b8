"""Standard output, wherever it leads: an answer that cannot be written is no traceback.

What an answer says, and how it looks, is for others.
"""

from __future__ import annotations

import io
import os
import sys


def prepare() -> None:
    """Let every answer be written, also where an output is closed, or knows few letters."""
    if sys.stdout is None:
        sys.stdout = _nowhere()
    if sys.stderr is None:
        sys.stderr = _nowhere()
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.encoding.lower() != "utf-8":
        sys.stdout.reconfigure(errors="backslashreplace")


def forget() -> None:
    """Let what was not written yet go nowhere: the interpreter must not complain when it flushes."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _nowhere() -> io.TextIOWrapper:
    return os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
