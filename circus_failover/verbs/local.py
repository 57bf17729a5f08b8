"""Verbs that run in failoverctl itself, with or without a circusd."""

from __future__ import annotations


class Failed(Exception):
    """A verb failed: one message, and the exit code."""

    def __init__(self, message: str, code: int = 3) -> None:
        super().__init__(message)
        self.code = code
