"""The `codex` runtime."""

from __future__ import annotations

from circus_failover.agents.command import CommandRuntime


class CodexRuntime(CommandRuntime):
    """To be written."""

    name = "codex"
    program: str | None = "codex"
