"""How a command line fails: one message and an exit code. It imports nothing, since every verb needs it."""

from __future__ import annotations

FOUND = UNREACHABLE = 1
"""circusd cannot be reached or took too long, or an offline check found something."""
USAGE = 2
REFUSED = 3


class Failed(Exception):
    """A verb failed: one message, and the exit code."""

    def __init__(self, message: str, code: int = REFUSED) -> None:
        super().__init__(message)
        self.code = code
